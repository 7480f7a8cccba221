"""Calls of a policy keep to themselves what other threads could change."""

import threading
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo import TRPO
from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import PolicyInterface
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "seed": 0, "device": "cpu"}


@pytest.mark.parametrize("actions", ACTIONS)
def test_a_distribution_stays_when_the_policy_is_asked_again(actions: str) -> None:
    policy = TRPO("MlpPolicy", RandomEnv(action_space=ACTIONS[actions]), **SETTINGS).policy
    interface, first, second = PolicyInterface(policy), th.rand(5, 3), th.rand(2, 3)
    distribution = interface.distribution(States(first))
    mode = distribution.mode().clone()
    policy.predict(second.numpy())
    interface.act(States(second))
    assert th.equal(distribution.mode(), mode)


class Counting(ActorCriticPolicy):
    """A policy that remembers its calls."""

    n_calls = 0

    def get_distribution(self, obs: Any) -> Any:
        self.n_calls += 1
        self.seen = obs
        return super().get_distribution(obs)


def test_attributes_that_a_call_sets_are_the_policys() -> None:
    policy = TRPO(Counting, RandomEnv(), **SETTINGS).policy
    assert isinstance(policy, Counting)
    states = States(th.rand(4, 3))
    for _ in range(3):
        PolicyInterface(policy).distribution(states)
    assert policy.n_calls == 3
    assert policy.seen is states.observations


@pytest.mark.parametrize("observations", ["vector", "dict"])
def test_predictions_in_another_thread_do_not_disturb_the_training(observations: str) -> None:
    policy = "MultiInputPolicy" if observations == "dict" else "MlpPolicy"

    def make() -> TRPO:
        return TRPO(policy, RandomEnv(OBSERVATIONS[observations], ACTIONS["discrete"]), **SETTINGS)

    alone, model, stop = make().learn(640), make(), threading.Event()
    observation = model.observation_space.sample()

    def predict() -> None:
        while not stop.is_set():
            model.predict(observation, deterministic=True)

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        model.learn(640)
    finally:
        stop.set()
        thread.join()
    for name, value in alone.policy.state_dict().items():
        np.testing.assert_array_equal(model.policy.state_dict()[name].numpy(), value.numpy(), err_msg=name)

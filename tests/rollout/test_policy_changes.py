"""A policy that a callback changes in the middle of a rollout acts from the next step on, and is recorded as it acted."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trpo import TRPO, ResumeCallback
from sb3_trpo.rollout.policy_changes import PolicyWatch
from tests.helpers import OwnBuffer, make_policy
from tests.toy_envs import RandomEnv

CHANGED_AT, N_STEPS = 12, 40


def far_bias(n: int) -> nn.Linear:
    layer = nn.Linear(64, n)
    with th.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.fill_(50.0)
    return layer


def hook(model: TRPO) -> None:
    model.policy.action_net.register_forward_hook(lambda module, args, output: output + 50.0)


def replace_layer(model: TRPO) -> None:
    model.policy.action_net = far_bias(2)


def replace_parameter(model: TRPO) -> None:
    model.policy.action_net.bias = nn.Parameter(th.full((2,), 50.0))


def replace_policy(model: TRPO) -> None:
    other = copy.deepcopy(model.policy)
    other.action_net = far_bias(2)
    model.policy = other


def patch(model: TRPO) -> None:
    original = model.policy.action_net.forward
    model.policy.action_net.forward = lambda x: original(x) + 50.0


def move_weights(model: TRPO) -> None:
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").fill_(50.0)


CHANGES = [hook, replace_layer, replace_parameter, replace_policy, patch, move_weights]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_next_step_uses_the_changed_policy(change: Callable[[TRPO], None], fast: bool, n_envs: int) -> None:
    class CollectedError(Exception):
        pass

    class Untrained(TRPO):
        def train(self) -> None:
            raise CollectedError

    kwargs: dict[str, Any] = {} if fast else {"rollout_buffer_class": OwnBuffer}
    env = DummyVecEnv([lambda: RandomEnv(length=7, truncate=True) for _ in range(n_envs)])
    model = Untrained("MlpPolicy", env, n_steps=N_STEPS, batch_size=8, seed=0, device="cpu", **kwargs)
    before = copy.deepcopy(model.policy)

    def at_a_step(local: dict[str, Any], _: Any) -> bool:
        if local["n_steps"] == CHANGED_AT - 1:
            change(model)
        return True

    with pytest.raises(CollectedError):
        model.learn(N_STEPS * n_envs, callback=at_a_step)
    buffer = model.rollout_buffer
    assert np.abs(buffer.actions[:CHANGED_AT]).max() < 10.0
    assert buffer.actions[CHANGED_AT:].min() > 40.0
    assert buffer.full
    for policy, rows in ((before, slice(0, CHANGED_AT)), (model.policy, slice(CHANGED_AT, N_STEPS))):
        values, log_probs = evaluate(policy, buffer.observations[rows], buffer.actions[rows])
        np.testing.assert_allclose(buffer.log_probs[rows].flatten(), log_probs, atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(buffer.values[rows].flatten(), values, atol=1e-5)
    np.testing.assert_allclose(buffer.returns, buffer.advantages + buffer.values, atol=1e-5)


def evaluate(policy: ActorCriticPolicy, observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    obs, acts = (th.from_numpy(array.reshape(-1, array.shape[-1])) for array in (observations, actions))
    with th.no_grad():
        values, log_probs, _ = policy.evaluate_actions(obs, acts)
    return values.flatten().numpy(), log_probs.numpy()


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not move_weights])
def test_changes_are_seen(change: Callable[[Any], None]) -> None:
    class Holder:
        policy = make_policy()

    policy = Holder.policy
    watch = PolicyWatch(policy, CallbackList([CheckpointCallback(10, "folder"), ConvertCallback(lambda *_: True)]))
    assert not watch.changed(policy)
    change(Holder)
    assert watch.changed(Holder.policy)


class Custom(ResumeCallback):
    """A subclass, which may change anything."""


@pytest.mark.parametrize(
    ("callback", "watched"),
    [
        (lambda: ConvertCallback(None), False),
        (lambda: CheckpointCallback(10, "folder"), False),
        (lambda: ResumeCallback("folder"), False),
        (lambda: EvalCallback(RandomEnv(), callback_on_new_best=CheckpointCallback(10, "folder")), False),
        (lambda: EvalCallback(RandomEnv(), callback_after_eval=Custom("folder")), True),
        (lambda: CallbackList([ResumeCallback("folder"), Custom("folder")]), True),
    ],
)
def test_a_policy_is_watched_unless_every_callback_is_known_to_leave_it(
    callback: Callable[[], BaseCallback], watched: bool
) -> None:
    policy = make_policy()
    watch = PolicyWatch(policy, callback())
    hook(type("Holder", (), {"policy": policy}))  # type: ignore[arg-type]
    assert watch.changed(policy) == watched
    assert watch.changed(make_policy())

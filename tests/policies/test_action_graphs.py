"""A model can be copied at any time, and the copy behaves as the model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo import TRPO
from sb3_trpo.policies.action_graphs import detach_action_dist
from tests.helpers import ACTORS, OBSERVATIONS, make_policy
from tests.toy_envs import ACTIONS, RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "seed": 0}
SDE: dict[str, dict[str, Any]] = {
    "plain": {},
    "squashed": {"squash_output": True},
    "expln": {"use_expln": True, "full_std": False},
}


def same_weights(a: TRPO, b: TRPO) -> bool:
    return all(map(th.equal, a.policy.state_dict().values(), b.policy.state_dict().values()))


class Copies(BaseCallback):
    def _on_step(self) -> bool:
        copy.deepcopy(self.model.policy)
        return True


@pytest.mark.parametrize("kind", SDE)
def test_gsde_models_can_be_copied(kind: str, tmp_path: Path) -> None:
    def make() -> TRPO:
        return TRPO("MlpPolicy", RandomEnv(), use_sde=True, sde_sample_freq=4, policy_kwargs=SDE[kind], **SETTINGS)

    twin = copy.deepcopy(make())
    twin.set_random_seed(0)
    twin.learn(64)
    model = make()
    model.set_random_seed(0)
    assert same_weights(twin, model.learn(64, callback=Copies()))
    copy.deepcopy(model)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", RandomEnv())
    assert same_weights(copy.deepcopy(loaded), model)


def test_noise_keeps_the_numbers_of_sb3() -> None:
    th.manual_seed(0)
    policy = ActorCriticPolicy(OBSERVATIONS, ACTIONS["box"], lambda _: 1e-3, use_sde=True)
    before = policy.action_dist
    assert isinstance(before, StateDependentNoiseDistribution)
    numbers, state = (before.exploration_mat.clone(), before.weights_dist.scale.clone()), th.get_rng_state()
    detach_action_dist(policy)
    assert th.equal(before.exploration_mat, numbers[0])
    assert th.equal(before.weights_dist.scale, numbers[1])
    assert th.equal(th.get_rng_state(), state)


@pytest.mark.parametrize("actor", ACTORS)
def test_distribution_of_the_last_states_does_not_stop_a_copy(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    policy.get_distribution(th.zeros(5, 3))
    detach_action_dist(policy)
    other = copy.deepcopy(policy)
    assert other.get_distribution(th.zeros(5, 3)).distribution is not None


@pytest.mark.parametrize("actions", ACTIONS)
def test_model_without_a_step_can_be_copied(actions: str) -> None:
    env = RandomEnv(action_space=ACTIONS[actions])
    model = TRPO("MlpPolicy", env, cg_damping=0.0, line_search_accept_ratio=1.0, line_search_max_iter=1, **SETTINGS)
    assert copy.deepcopy(model.learn(32)).learn(32).num_timesteps == 32

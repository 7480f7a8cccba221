"""Rollouts whose advantages are mostly the critic's errors have a smaller bound on the KL."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo import TRPO, DualTRPO, KLPenaltyTRPO, RecurrentTRPO, VineTRPO
from sb3_trpo.update.bound_scaling import bound_scale
from tests.toy_envs import RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0, "device": "cpu"}
RETURNS = th.tensor([1.0, 2.0, 3.0, 4.0])


def explained_variance(advantages: th.Tensor, returns: th.Tensor) -> float:
    return 1.0 - (advantages.var() / returns.var()).item()


@pytest.mark.parametrize("values", [[0.0] * 4, [7.0] * 4, [1.0, 2.0, 3.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
def test_a_critic_at_least_as_good_as_a_constant_scales_nothing(values: list[float]) -> None:
    assert bound_scale(RETURNS - th.tensor(values), RETURNS) == 1.0


@pytest.mark.parametrize("values", [[4.0, 3.0, 2.0, 1.0], [1.0, 9.0, 1.0, 9.0]])
def test_the_scale_follows_from_the_explained_variance(values: list[float]) -> None:
    advantages = RETURNS - th.tensor(values)
    explained = explained_variance(advantages, RETURNS)
    assert explained < 0.0
    assert bound_scale(advantages, RETURNS) == pytest.approx((1.0 - explained) ** -2)


def test_the_scale_has_a_smallest_value() -> None:
    assert bound_scale(1e6 * RETURNS, RETURNS) == 1e-3
    assert bound_scale(RETURNS, th.ones(4)) == 1e-3


def test_without_a_spread_nothing_is_scaled() -> None:
    assert bound_scale(th.zeros(4), RETURNS) == bound_scale(th.ones(4), th.ones(4)) == 1.0
    assert bound_scale(th.ones(1), th.zeros(1)) == 1.0


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_the_unit_of_the_rewards_does_not_matter(unit: float) -> None:
    advantages = 3.0 * RETURNS.flip(0) + 5.0
    assert bound_scale(unit * advantages, unit * RETURNS) == bound_scale(advantages, RETURNS)


def test_weights_count_transitions_as_often_as_they_say() -> None:
    advantages, weights = th.tensor([1.0, -5.0, 2.0, 9.0]), th.tensor([1.0, 2.0, 1.0, 0.0])
    repeated = th.tensor([0, 1, 1, 2])
    assert bound_scale(advantages, RETURNS, weights) == pytest.approx(bound_scale(advantages[repeated], RETURNS[repeated]))
    assert bound_scale(advantages, RETURNS, weights) < 1.0


def bounds(model: TRPO, n_updates: int) -> list[tuple[float, float]]:
    """Train, check that every step keeps its bound, and return bound and explained variance of every update."""
    logged: list[tuple[float, float]] = []
    update = model.train

    def train() -> None:
        buffer = model.rollout_buffer
        before = explained_variance(th.as_tensor(buffer.advantages), th.as_tensor(buffer.returns))
        update()
        bound = model.logger.name_to_value["train/target_kl"]
        assert model.last_step is not None
        assert model.last_step.kl <= bound * (1 + 1e-5)
        logged.append((bound, before))

    model.train = train  # type: ignore[method-assign]
    model.learn(64 * n_updates)
    return logged


class Confused(TRPO):
    """Spoils the critic before every update but the first two."""

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        if self._n_updates > 1:
            with th.no_grad():
                self.policy.value_net.weight.normal_(0.0, 30.0, generator=th.Generator().manual_seed(self._n_updates))
        return super().collect_rollouts(*args, **kwargs)


def test_a_critic_that_knows_nothing_shortens_the_steps() -> None:
    plain = bounds(Confused("MlpPolicy", RandomEnv(), target_kl=0.02, scale_target_kl=False, **SETTINGS), 6)
    assert [bound for bound, _ in plain] == [0.02] * 6
    scaled = bounds(Confused("MlpPolicy", RandomEnv(), target_kl=0.02, **SETTINGS), 6)
    assert scaled[0][0] == 0.02  # new values are 0
    assert all(bound < 0.002 for bound, _ in scaled[2:])
    for bound, explained in scaled:
        assert bound == pytest.approx(0.02 * min(1.0, max(1e-3, (1.0 - min(explained, 0.0)) ** -2)), rel=1e-3)


@pytest.mark.parametrize("cls", [RecurrentTRPO, VineTRPO])
def test_variants_scale_their_bound_too(cls: type[TRPO]) -> None:
    settings: dict[str, Any] = {**SETTINGS, "target_kl": 0.02, "learning_rate": 1.0}  # spoils the critic
    policy = "MlpLstmPolicy" if cls is RecurrentTRPO else "MlpPolicy"
    env: Any = RandomEnv() if cls is RecurrentTRPO else "CartPole-v1"
    logged = [bound for bound, _ in bounds(cls(policy, env, **settings), 4)]
    assert np.min(logged) < 0.02


def test_a_bound_of_zero_stays_zero() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl=lambda progress: 0.02 * (progress > 0.5), **SETTINGS)
    assert [bound > 0.0 for bound, _ in bounds(model, 3)] == [True, False, False]


@pytest.mark.parametrize("cls", [KLPenaltyTRPO, DualTRPO])
def test_an_adaptive_coefficient_has_one_target(cls: type[TRPO]) -> None:
    assert not cls("MlpPolicy", RandomEnv(), **SETTINGS).scale_target_kl
    assert cls("MlpPolicy", RandomEnv(), scale_target_kl=True, **SETTINGS).scale_target_kl


def test_an_older_model_goes_on_without(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    del model.scale_target_kl
    model.save(tmp_path / "model")
    assert not TRPO.load(tmp_path / "model", RandomEnv()).scale_target_kl

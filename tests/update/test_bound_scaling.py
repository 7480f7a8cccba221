"""Rollouts with smaller advantages than usual have a smaller bound on the KL."""

from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import RewardWrapper

from sb3_trpo import TRPO, DualTRPO, KLPenaltyTRPO
from sb3_trpo.batch.advantages import mean_square
from sb3_trpo.update.bound_scaling import bound_scale
from sb3_trpo.update.moments import RunningMoments
from tests.toy_envs import RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0, "device": "cpu"}


class Fading(RewardWrapper[Any, Any]):
    """Divides the rewards by 8 from a step on."""

    after = 192
    n_steps = 0

    def reward(self, reward: Any) -> float:
        self.n_steps += 1
        return float(reward) / (8.0 if self.n_steps > self.after else 1.0)


def bounds(model: TRPO, n_updates: int) -> list[float]:
    """Train, and return the bound of every update."""
    logged: list[float] = []
    record = model.train

    def train() -> None:
        record()
        logged.append(model.logger.name_to_value["train/target_kl"])
        assert model.last_step is not None
        assert model.last_step.kl <= logged[-1] * (1 + 1e-5)

    model.train = train  # type: ignore[method-assign]
    model.learn(64 * n_updates)
    return logged


def test_the_scale_is_the_ratio_to_the_running_mean() -> None:
    moments = RunningMoments()
    assert [bound_scale(moments, size) for size in (4.0, 4.0, 1.0)] == [1.0, 1.0, pytest.approx(1.0 / 3.0)]
    assert moments.mean.item() == pytest.approx(3.0)
    assert bound_scale(moments, 100.0) == 1.0  # never above the bound that was asked for


def test_the_running_mean_forgets() -> None:
    moments = RunningMoments()
    scales = [bound_scale(moments, size) for size in [1.0] * 50 + [0.01] * 60]
    assert scales[50] < 0.02
    assert scales[-1] > 0.8


def test_the_unit_does_not_matter() -> None:
    sizes = [3.0, 0.7, 1.9, 0.01]
    scales = []
    for unit in (1.0, 2.0**-40, 2.0**40):
        moments = RunningMoments()
        scales.append([bound_scale(moments, size * unit) for size in sizes])
    assert scales[0] == scales[1] == scales[2]


def test_advantages_of_zero_scale_nothing_to_zero() -> None:
    moments = RunningMoments()
    assert bound_scale(moments, 0.0) == 1.0
    assert bound_scale(moments, 5.0) == 1.0
    assert bound_scale(moments, 0.0) == 1e-3


def test_the_mean_square_counts_each_advantage_as_often_as_it_weighs() -> None:
    advantages, weights = th.tensor([1.0, 3.0, 7.0]), th.tensor([2.0, 1.0, 0.0])
    assert mean_square(advantages, False, weights) == pytest.approx((1 + 1 + 9) / 3)
    assert mean_square(advantages, True, weights) == pytest.approx(th.tensor([1.0, 1.0, 3.0]).var(correction=0).item())
    assert mean_square(advantages, True) == pytest.approx(advantages.var(correction=0).item())


@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_a_run_whose_rewards_fade_takes_shorter_steps(normalize_advantage: bool) -> None:
    kwargs: dict[str, Any] = {**SETTINGS, "target_kl": 0.02, "normalize_advantage": normalize_advantage}
    plain = bounds(TRPO("MlpPolicy", Fading(RandomEnv()), scale_target_kl=False, **kwargs), 6)
    assert plain == [0.02] * 6
    scaled = bounds(TRPO("MlpPolicy", Fading(RandomEnv()), **kwargs), 6)
    assert scaled[0] == 0.02
    assert all(bound <= 0.02 for bound in scaled)
    assert max(scaled[4:]) < 0.2 * min(scaled[:3])


def test_a_bound_of_zero_stays_zero() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl=lambda progress: 0.02 * (progress > 0.5), **SETTINGS)
    assert [bound > 0.0 for bound in bounds(model, 3)] == [True, False, False]


def test_the_running_mean_is_saved(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(128)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model").advantage_moments
    assert loaded.n_rollouts == model.advantage_moments.n_rollouts == 2
    assert th.equal(loaded.mean, model.advantage_moments.mean)


@pytest.mark.parametrize("cls", [KLPenaltyTRPO, DualTRPO])
def test_an_adaptive_coefficient_has_one_target(cls: type[TRPO]) -> None:
    assert not cls("MlpPolicy", RandomEnv(), **SETTINGS).scale_target_kl
    assert cls("MlpPolicy", RandomEnv(), scale_target_kl=True, **SETTINGS).scale_target_kl


def test_an_older_model_goes_on_without(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    del model.scale_target_kl, model.advantage_moments
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", RandomEnv())
    assert not loaded.scale_target_kl
    loaded.scale_target_kl = True
    assert loaded.learn(64, reset_num_timesteps=False).advantage_moments.n_rollouts == 1

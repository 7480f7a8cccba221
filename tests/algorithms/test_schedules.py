"""Schedules fall over the rollouts of one `learn`, and keep their first value in one that is a single rollout long."""

import warnings
from collections.abc import Iterable
from typing import Any

import pytest
from stable_baselines3.common.logger import configure

from sb3_trpo import TRPO, VineTRPO
from tests.toy_envs import RandomEnv

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0, "scale_target_kl": False}
MESSAGE = r"`learn` is called for one rollout at a time, so every schedule keeps its first value \(`target_kl`\)"


def bounds_of(model: TRPO, budgets: Iterable[int], **kwargs: Any) -> list[float]:
    """The bound and the policy's step after each call of `learn`."""
    bounds = []
    for budget in budgets:
        model.set_logger(configure(None, []))
        model.learn(budget, reset_num_timesteps=False, **kwargs)
        bounds.append(model.logger.name_to_value["train/target_kl"])
    return bounds


def test_a_schedule_keeps_its_first_value_in_repeated_calls_of_one_rollout() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl="lin_0.02", learning_rate=1e-3, **SMALL)
    with pytest.warns(UserWarning, match=MESSAGE) as caught:
        assert bounds_of(model, [64, 64, 64, 40]) == [0.02] * 4
    assert len(caught) == 1  # once
    assert model.last_step is not None
    assert model.last_step.accepted


def test_without_a_falling_schedule_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = TRPO("MlpPolicy", RandomEnv(), target_kl=lambda _: 0.02, **SMALL)
        assert bounds_of(model, [64, 64]) == [0.02, 0.02]
        assert bounds_of(TRPO("MlpPolicy", RandomEnv(), target_kl="lin_0.02", **SMALL), [64]) == [0.02]


def test_calls_of_several_rollouts_fall_to_the_end_as_in_sb3() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl="lin_0.02", **SMALL)
    assert bounds_of(model, [128]) == [0.0]
    model.learn(64 * 4)
    assert model._current_progress_remaining == 0.0


@pytest.mark.filterwarnings("ignore:`learn` is called")
def test_a_rollout_has_its_branches() -> None:
    branches: dict[str, Any] = {"n_branch_states": 2, "branch_length": 4}
    model = VineTRPO("MlpPolicy", "CartPole-v1", target_kl="lin_0.02", **branches, **SMALL)
    budgets = [64, 65, 70]  # all spent by 64 steps of the trunk and their branches
    assert bounds_of(model, budgets) == [0.02] * 3
    assert model.num_timesteps > sum(budgets)
    assert bounds_of(model, [400])[0] < 0.02

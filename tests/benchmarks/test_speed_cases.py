"""The cases of the speed table: both sides have the settings that the table promises."""

import pickle

import pytest
import sb3_contrib
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.common.speed_cases import SHARED, UPDATES, WHOLE_RUNS, Case
from sb3_trpo import TRPO

CASES = [*WHOLE_RUNS, *UPDATES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_both_sides_of_a_case(case: Case) -> None:
    ours, peer = pickle.loads(pickle.dumps(case)).models("cpu")  # a case goes to another process
    assert (type(ours), type(peer)) == (TRPO, PPO if "PPO" in case.label else sb3_contrib.TRPO)
    for model in (ours, peer):
        assert model.n_envs == (8 if "8 envs" in case.label else 1)
        assert isinstance(model.env, VecNormalize) is ("VecNormalize" in case.label)
        assert model.n_steps == {**SHARED, **case.settings}["n_steps"]
    if not isinstance(peer, PPO):
        for name in ("batch_size", "n_critic_updates", "cg_max_steps"):
            assert getattr(ours, name) == getattr(peer, name)


def test_goals_are_cells() -> None:
    assert Case("", 2.5, None, "CartPole-v1").goals() == ("2.5x", "")

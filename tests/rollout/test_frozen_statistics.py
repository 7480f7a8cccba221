"""Statistics of VecNormalize that take in whole rollouts."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO, load_vec_normalize
from sb3_trpo.rollout.frozen_statistics import FrozenStatistics
from tests.toy_envs import RandomEnv

KEYS = spaces.Dict({"b": spaces.Box(-1.0, 1.0, (2,)), "a": spaces.Box(-1.0, 1.0, (3,))})


def normalized(space: Any = None, n_envs: int = 2) -> VecNormalize:
    return VecNormalize(DummyVecEnv([lambda: RandomEnv() if space is None else RandomEnv(space)] * n_envs))


def moments_of(normalizer: VecNormalize) -> list[tuple[Any, ...]]:
    of_observations: Any = normalizer.obs_rms
    parts = (
        [of_observations[key] for key in sorted(of_observations)] if isinstance(of_observations, dict) else [of_observations]
    )
    return [(part.mean.copy(), part.var.copy(), part.count) for part in (*parts, normalizer.ret_rms)]


@pytest.mark.parametrize("space", [None, KEYS])
def test_they_change_only_when_the_rollout_is_merged(space: Any) -> None:
    ours, theirs = normalized(space), normalized(space)
    frozen, before = FrozenStatistics(ours), moments_of(ours)
    for env in (ours, theirs):
        env.seed(0)
        env.reset()
        for _ in range(20):
            env.step(np.zeros((2, *(env.action_space.shape or ())), dtype=np.float32))
    for mine, old in zip(moments_of(ours), before, strict=True):
        for a, b in zip(mine, old, strict=True):
            np.testing.assert_array_equal(a, b)
    frozen.merge([frozen.gathered()])
    for mine, followed in zip(moments_of(ours), moments_of(theirs), strict=True):
        for a, b in zip(mine, followed, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    frozen.merge([frozen.gathered()])  # nothing is counted twice
    assert moments_of(ours)[0][2] == moments_of(theirs)[0][2]
    frozen.release()
    assert type(ours.ret_rms) is RunningMeanStd
    assert moments_of(ours)[0][2] == moments_of(theirs)[0][2]


def test_the_first_values_count_once_for_all_workers() -> None:
    envs = [normalized() for _ in range(2)]
    rows = [np.array([[0.0] * 3] * 3), np.array([[3.0] * 3] * 3)]
    frozen = [FrozenStatistics(env) for env in envs]
    for env, part in zip(envs, rows, strict=True):
        env.obs_rms.update(part)
    gathered = [part.gathered() for part in frozen]
    one = RunningMeanStd(shape=(3,))
    one.update(np.concatenate(rows))
    for env, own in zip(envs, frozen, strict=True):
        own.merge(gathered)
        statistics: Any = env.obs_rms
        np.testing.assert_allclose(statistics.mean, one.mean, rtol=1e-12)
        np.testing.assert_allclose(statistics.var, one.var, rtol=1e-12)
        assert statistics.count == one.count == pytest.approx(6.0001)


def test_copies_and_pickles_are_sb3s(tmp_path: Path) -> None:
    env = normalized()
    env.obs_rms.update(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]))
    frozen = FrozenStatistics(env)
    env.save(str(tmp_path / "frozen.pkl"))
    loaded: Any = load_vec_normalize(str(tmp_path / "frozen.pkl"), env.venv)
    assert type(loaded.obs_rms) is RunningMeanStd
    for mine, theirs in zip(moments_of(loaded), moments_of(env), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    env.ret_rms.update(np.ones(2))
    for other in (copy.deepcopy(env.ret_rms), pickle.loads(pickle.dumps(env.ret_rms))):
        assert type(other) is RunningMeanStd
        assert [float(other.mean), float(other.var), other.count] == [0.0, 1.0, 1e-4]
    assert b"sb3_trpo" not in pickle.dumps(env.ret_rms)  # files must not need this package
    state = [tuple(part) for part in frozen.gathered()]
    frozen.merge([frozen.gathered()])
    frozen.restore(state)  # type: ignore[arg-type]
    assert frozen.gathered()[-1].n_rows == 2.0


@pytest.mark.parametrize("freeze", [None, True])
def test_one_process_follows_every_step_unless_it_is_told_to_freeze(freeze: bool | None) -> None:
    env = normalized()
    model = TRPO("MlpPolicy", env, n_steps=16, batch_size=32, seed=0, freeze_normalization=freeze)
    normalizer: Any = model.get_vec_normalize_env()
    counts: list[float] = []

    def note(*_: Any) -> bool:
        counts.append(normalizer.obs_rms.count)
        return True

    model.learn(64, callback=note)
    rows = np.round(np.array(counts)).astype(int).tolist()
    expected = [0] * 16 + [34] * 16 if freeze else list(range(4, 68, 2))
    assert rows == expected
    assert type(normalizer.obs_rms) is RunningMeanStd
    assert round(normalizer.obs_rms.count) == 66

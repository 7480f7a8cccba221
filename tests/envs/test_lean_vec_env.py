"""LeanVecEnv returns the same as DummyVecEnv, and the returned values never change."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from sb3_trpo import TRPO
from sb3_trpo.envs.lean_vec_env import LeanVecEnv, wrap_bare_env
from tests.toy_envs import OBSERVATIONS, RandomEnv


class ReusingEnv(RandomEnv):
    """Writes every observation into one array and returns one info."""

    def __init__(self) -> None:
        super().__init__(length=3, truncate=True)
        self.obs = np.zeros(3, dtype=np.float32)
        self.info: dict[str, Any] = {"step": 0}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.obs[:] = -1.0
        self.steps = 0
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.obs[:] = self.steps
        self.info["step"] = self.steps
        return self.obs, 0.0, False, self.steps == 3, self.info


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and np.array_equal(a, b)


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("truncate", [False, True])
def test_lean_vec_env_returns_what_dummy_vec_env_returns(name: str, truncate: bool) -> None:
    def make() -> RandomEnv:
        # each environment samples from a separate space
        return RandomEnv(deepcopy(OBSERVATIONS[name]), length=3, truncate=truncate)

    envs = [cls([make, make]) for cls in (LeanVecEnv, DummyVecEnv)]
    for env in envs:
        env.seed(3)
    assert equal(*(env.reset() for env in envs))
    for _ in range(8):
        actions = np.full((2, 2), 0.5, dtype=np.float32)
        lean, dummy = (env.step(actions) for env in envs)
        assert equal(lean[0], dummy[0])
        assert equal(lean[1], dummy[1])
        assert equal(lean[2], dummy[2])
        assert all(equal(a, b) for a, b in zip(lean[3], dummy[3], strict=True))
        for name in ("buf_rews", "buf_dones"):
            assert equal(*(getattr(env, name) for env in envs))
        assert all(equal(a, b) for a, b in zip(*(env.buf_infos for env in envs), strict=True))


def test_returned_values_do_not_change_afterwards() -> None:
    env = LeanVecEnv([ReusingEnv])
    env.reset()
    steps: list[Any] = [env.step(np.zeros((1, 2))) for _ in range(4)]
    assert [step[0][0, 0] for step in steps] == [1.0, 2.0, -1.0, 1.0]
    assert [step[3][0]["step"] for step in steps] == [1, 2, 3, 1]
    np.testing.assert_array_equal(steps[2][3][0]["terminal_observation"], np.full(3, 3.0))
    assert "terminal_observation" not in steps[3][3][0]


def test_bare_env_is_monitored_and_lean() -> None:
    env = TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).get_env()
    assert isinstance(env, LeanVecEnv)
    assert env.env_is_wrapped(Monitor) == [True]


def test_monitor_is_not_added_twice_nor_against_the_user() -> None:
    assert not isinstance(wrap_bare_env(Monitor(RandomEnv()), 0, True).envs[0].env, Monitor)  # type: ignore[attr-defined]
    assert wrap_bare_env(RandomEnv(), 0, False).env_is_wrapped(Monitor) == [False]


def test_image_env_is_transposed_as_in_sb3() -> None:
    model = TRPO("CnnPolicy", RandomEnv(OBSERVATIONS["image"]), n_steps=8, batch_size=8)
    assert isinstance(model.get_env(), VecTransposeImage)
    assert model.observation_space.shape == (1, 36, 36)


def test_vec_env_of_the_user_is_used_as_it_is() -> None:
    env = DummyVecEnv([RandomEnv])
    assert TRPO("MlpPolicy", env, n_steps=64, batch_size=16).get_env() is env

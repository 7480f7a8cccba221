"""Observations whose shape or numbers contradict their space are refused at any step, on both ways to act."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_trpo import TRPO
from tests.helpers import OwnBuffer, collect, why_not_fast
from tests.toy_envs import IMAGE, OBSERVATIONS, VECTOR, RandomEnv

Change = Callable[[Any], Any]
MATRIX = OBSERVATIONS["matrix"]
DICT = spaces.Dict({"matrix": MATRIX, "vector": VECTOR})
SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "seed": 0}


class Changed(VecEnvWrapper):
    """
    Changes observations, from one step on, and terminal observations; the space stays.

    :param change: maps the observations of all environments to others
    :param change_terminal: maps the terminal observation of one environment to another
    :param since: first step, counted from 1, whose observations are changed; 0: the reset
    """

    def __init__(self, venv: Any, change: Change | None = None, change_terminal: Change | None = None, since: int = 0) -> None:
        super().__init__(venv)
        self.change, self.change_terminal, self.since = change, change_terminal, since
        self.steps = 0

    def reset(self) -> Any:
        obs = self.venv.reset()
        return self.change(obs) if self.change and self.since == 0 else obs

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        if self.change_terminal:
            for i in np.flatnonzero(dones):
                infos[i]["terminal_observation"] = self.change_terminal(infos[i]["terminal_observation"])
        return (self.change(obs) if self.change and self.steps >= self.since else obs), rewards, dones, infos


def make(space: spaces.Space[Any], fast: bool, n_envs: int = 2, **changes: Any) -> TRPO:
    env = Changed(DummyVecEnv([lambda: RandomEnv(space, length=5, truncate=True)] * n_envs), **changes)
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    model = TRPO(policy, env, **SMALL, use_sde=not fast)
    assert (why_not_fast(model) is None) is fast
    return model


def check_refused(model: TRPO, message: str) -> None:
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match=message):
        model.learn(64)
    assert all(th.equal(*pair) for pair in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("since", [0, 4, 16])
def test_observations_of_another_shape_are_refused(fast: bool, since: int) -> None:
    model = make(MATRIX, fast, change=lambda obs: obs.transpose(0, 2, 1), since=since)
    check_refused(model, rf"observations at step {since} .* shape \(2, 3, 2\), not \(2, 2, 3\): 2 environments .*\(2, 3\)")


@pytest.mark.parametrize("fast", [True, False])
def test_observations_of_fewer_environments_are_refused(fast: bool) -> None:
    check_refused(make(VECTOR, fast, change=lambda obs: obs[:1]), r"have shape \(1, 3\), not \(2, 3\)")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("change", [np.transpose, lambda obs: np.zeros(4, np.float32), lambda obs: obs[None]])
def test_terminal_observations_of_another_shape_are_refused(fast: bool, n_envs: int, change: Change) -> None:
    shape = change(np.zeros((2, 3), np.float32)).shape
    message = (
        rf"terminal observation of environment 0 at step 4 .*shape \({', '.join(map(str, shape))}.*not the shape \(2, 3\)"
    )
    check_refused(make(MATRIX, fast, n_envs, change_terminal=change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: {**obs, "matrix": np.swapaxes(obs["matrix"], -1, -2)}, r"shape \(.*3, 2\)"),
        (lambda obs: {"vector": obs["vector"]}, r"must have the keys \['matrix', 'vector'\] of their space, not \['vector'\]"),
        (lambda obs: {**obs, "more": obs["vector"]}, r"not \['matrix', 'vector', 'more'\]"),
        (lambda obs: obs["vector"], r"must be a dict with the keys \['matrix', 'vector'\], not a ndarray"),
    ],
)
def test_dicts_are_checked_key_by_key(change: Change, message: str) -> None:
    check_refused(make(DICT, False, change=change, since=3), f"The observations.* at step 3 .*{message}")
    check_refused(make(DICT, False, change_terminal=change), f"The terminal observation.* 0 at step 4 .*{message}")


def test_the_key_of_a_wrong_shape_is_named() -> None:
    def change(obs: Any) -> Any:
        return {**obs, "matrix": np.swapaxes(obs["matrix"], -1, -2)}

    check_refused(make(DICT, False, change=change), "observations 'matrix' at step 0")
    check_refused(make(DICT, False, change_terminal=change), "terminal observation 'matrix' of environment 0 at step 4")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_space_passes(fast: bool, name: str) -> None:
    if name in ("image", "dict") and fast:
        return  # never on the fast way with an MlpPolicy
    model = make(OBSERVATIONS[name], fast)
    collect(model)
    assert model.rollout_buffer.full


@pytest.mark.parametrize("fast", [True, False])
def test_discrete_observations_may_have_the_buffers_shape(fast: bool) -> None:
    def rollout(**changes: Any) -> np.ndarray:
        model = collect(make(spaces.Discrete(4, seed=3), fast, n_envs=1, **changes))
        return np.concatenate([model.rollout_buffer.observations.flatten(), model.rollout_buffer.returns.flatten()])

    column = rollout(change=lambda obs: obs.reshape(-1, 1), change_terminal=lambda obs: np.array([obs]))
    np.testing.assert_array_equal(column, rollout())


@pytest.mark.parametrize("fast", [True, False])
def test_terminal_images_may_have_the_channels_last(fast: bool) -> None:
    def returns(change: Change | None) -> np.ndarray:
        space = spaces.Box(0, 255, (36, 40, 3), dtype=np.uint8)
        space.seed(1)
        plain = DummyVecEnv([lambda: RandomEnv(space, length=5, truncate=True)])
        env = Changed(TRPO._wrap_env(plain), change_terminal=change)
        kwargs: dict[str, Any] = {} if fast else {"rollout_buffer_class": OwnBuffer}
        model = TRPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0, **kwargs)
        assert (why_not_fast(model) is None) is fast
        return collect(model).rollout_buffer.returns

    np.testing.assert_array_equal(returns(lambda image: image.transpose(1, 2, 0)), returns(None))


class Counter(RandomEnv):
    """Observes the step of the episode."""

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return np.zeros(self.observation_space.shape or (), self.observation_space.dtype), {}

    def step(self, action: Any) -> Any:
        _, *others = super().step(action)
        return np.full(self.observation_space.shape or (), self.steps, self.observation_space.dtype), *others


def counting(change: Change, space: spaces.Space[Any], **kwargs: Any) -> TRPO:
    env = Changed(DummyVecEnv([lambda: Counter(space, length=50)]), change=change)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    return TRPO(policy, env, **SMALL, **kwargs)


BYTES = OBSERVATIONS["uint8"]


@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}, {"rollout_buffer_class": OwnBuffer}])
def test_fractions_for_an_integer_buffer_are_refused_at_any_step(kwargs: dict[str, Any]) -> None:
    def half(obs: np.ndarray) -> np.ndarray:
        return obs / 2  # 0 at the first step, 1/2 at the second

    check_refused(counting(half, BYTES, **kwargs), "observations have fractions, but their space has dtype uint8")


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_too_large_for_an_integer_buffer_are_refused(dtype: Any, sign: int) -> None:
    def larger(obs: np.ndarray) -> np.ndarray:
        return obs.astype(dtype) * 100 * sign

    check_refused(counting(larger, BYTES), r"observations reach from .* dtype uint8, so the .* can hold only 0 to 255")


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float32, np.float64])
def test_integers_that_the_buffer_can_hold_are_stored_in_any_dtype(dtype: Any) -> None:
    model = collect(counting(lambda obs: obs.astype(dtype), BYTES))
    assert model.rollout_buffer.observations[:, 0, 0].tolist() == list(range(16))


def test_images_may_come_as_floats_without_fractions() -> None:
    env = Changed(DummyVecEnv([lambda: RandomEnv(IMAGE)]), change=lambda obs: obs.astype(np.float32))
    assert TRPO("MlpPolicy", env, **SMALL).learn(16)._n_updates == 1

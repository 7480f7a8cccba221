"""Masks are found wherever environments keep them, and read at the right time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_trpo.envs.lean_vec_env import LeanVecEnv
from sb3_trpo.envs.mask_sources import OfInfo, OfMethod, OfObservation, OfVecEnv, find_mask_source
from sb3_trpo.envs.masked_vec_env import MaskedVecEnv
from tests.masked_envs import SPACES, MaskedEnv
from tests.toy_envs import ACTIONS, RandomEnv


def masks_of(env: Any) -> np.ndarray:
    mask: np.ndarray = env.unwrapped.mask
    return mask


class OwnMasks(DummyVecEnv):
    """A VecEnv that computes the masks of all its environments itself."""

    def action_masks(self) -> np.ndarray:
        return np.stack([env.unwrapped.mask for env in self.envs])  # type: ignore[attr-defined]


def vec_env(where: str, **kwargs: Any) -> VecEnv:
    return DummyVecEnv([partial(MaskedEnv, where=where, **kwargs)] * 2)


WRAPPED: dict[str, Callable[[], VecEnv]] = {
    "vec_env": lambda: VecMonitor(OwnMasks([MaskedEnv, MaskedEnv])),
    "env_method": lambda: VecMonitor(vec_env("env_method")),
    "monitor": lambda: LeanVecEnv([lambda: Monitor(gym.wrappers.TimeLimit(MaskedEnv(length=50), 3))]),
    "action_masker": lambda: DummyVecEnv([lambda: ActionMasker(MaskedEnv(where="info"), masks_of)]),
    "info": lambda: VecMonitor(vec_env("info")),
    "observation": lambda: VecMonitor(vec_env("observation")),
    "normalized": lambda: VecNormalize(vec_env("observation")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_masks_are_those_of_the_present_states(name: str) -> None:
    env = WRAPPED[name]()
    env.seed(3)
    observations = env.reset()
    source = find_mask_source(env)
    expected = {"vec_env": OfVecEnv, "info": OfInfo, "observation": OfObservation, "normalized": OfObservation}
    assert type(source) is expected.get(name, OfMethod)
    for step in range(20):  # episodes end on the way
        masks = source.masks(observations)
        assert source.step == step
        inner = [one.unwrapped.mask for one in env.unwrapped.envs]  # type: ignore[attr-defined]
        assert masks.tolist() == np.stack(inner).tolist()
        observations, _, dones, infos = env.step(masks.argmax(axis=1))  # the environments refuse forbidden actions
        source.observe(infos, dones)
    source.begin()
    assert source.step == 0
    observations = env.reset()
    source.reset()
    assert source.masks(observations).tolist() == np.stack([one.unwrapped.mask for one in env.unwrapped.envs]).tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["env_method", "info", "observation"])
def test_masks_of_other_processes(where: str) -> None:
    env = SubprocVecEnv([partial(MaskedEnv, where=where), partial(MaskedEnv, where=where)], start_method="fork")
    try:
        env.seed(3)
        observations = env.reset()
        source = find_mask_source(env)
        for _ in range(20):
            observations, _, dones, infos = env.step(source.masks(observations).argmax(axis=1))
            source.observe(infos, dones)
    finally:
        env.close()


def test_the_order_and_the_name() -> None:
    class Everywhere(MaskedEnv):
        def __init__(self) -> None:
            super().__init__(where="observation")
            self.action_masks = lambda: self.mask

        def _with_mask(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return super()._with_mask(obs, {**info, "action_masks": self.mask.tolist()})

    env = OwnMasks([Everywhere])
    env.reset()
    assert type(find_mask_source(env)) is OfVecEnv
    for name, cls in (("vec_env", OfVecEnv), ("env_method", OfMethod), ("info", OfInfo), ("observation", OfObservation)):
        assert type(find_mask_source(env, name)) is cls


def test_environments_without_masks_are_refused() -> None:
    env = DummyVecEnv([lambda: RandomEnv(action_space=ACTIONS["discrete"])])
    env.reset()
    with pytest.raises(ValueError, match=r"no action masks \(`mask_source` = 'auto'\).*ActionMasker.*use_masking=False"):
        find_mask_source(env)
    masked = vec_env("env_method")
    masked.reset()
    with pytest.raises(ValueError, match=r"no action masks \(`mask_source` = 'info'\)"):
        find_mask_source(masked, "info")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, False], r"must have the shape \(3,\), not \(2,\)"),
        ([0.5, 1.0, 0.0], "must have the values 0 and 1"),
        ([False] * 3, "allows no value: at least one must be True"),
    ],
)
@pytest.mark.parametrize("where", ["env_method", "info"])
def test_a_mask_that_is_none_is_refused_by_environment_and_step(where: str, mask: list[float], message: str) -> None:
    class Bad(MaskedEnv):
        @property
        def bad(self) -> bool:
            return self.steps == 2

        def _with_mask(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            obs, info = super()._with_mask(obs, info)
            return obs, {**info, "action_mask": mask} if self.bad and where == "info" else info

    def make() -> MaskedEnv:
        env = Bad(where=where)
        if where == "env_method":
            env.action_masks = lambda: mask if env.bad else env.mask  # type: ignore[assignment, return-value]
        return env

    env = DummyVecEnv([partial(MaskedEnv, where=where), make])
    observations = env.reset()
    source = find_mask_source(env)
    for _ in range(2):
        observations, _, dones, infos = env.step(source.masks(observations).argmax(axis=1))
        source.observe(infos, dones)
    with pytest.raises(ValueError, match=f"The action mask of environment 1 at step 2 of the rollout {message}"):
        source.masks(observations)


def test_a_mask_that_is_missing_in_an_info_is_refused() -> None:
    class Forgetful(MaskedEnv):
        def _with_mask(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return (obs, info) if self.steps else super()._with_mask(obs, info)

    env = DummyVecEnv([lambda: Forgetful(where="info")])
    source = (env.reset(), find_mask_source(env))[1]
    _, _, dones, infos = env.step(source.masks(None).argmax(axis=1))
    source.observe(infos, dones)
    with pytest.raises(ValueError, match=r"environment 0 at step 1 of the rollout is missing: its info has no"):
        source.masks(None)


def test_stacked_masks_are_refused() -> None:
    env = VecFrameStack(vec_env("observation"), 2)
    source, observations = None, env.reset()
    source = find_mask_source(env)
    with pytest.raises(ValueError, match=r"environment 0 at step 0 of the rollout must have the shape \(3,\), not \(6,\)"):
        source.masks(observations)


@pytest.mark.parametrize("actions", SPACES)
@pytest.mark.parametrize("where", ["env_method", "info", "observation"])
def test_the_wrapper_tells_masks_as_sb3_contrib_asks(where: str, actions: str) -> None:
    env = MaskedVecEnv(vec_env(where, action_space=ACTIONS[actions]))
    with pytest.raises(ValueError, match="known after `reset`"):
        env.action_masks()
    env.reset()
    assert env.has_attr("action_masks")
    assert not env.has_attr("no_such_name")
    for _ in range(12):
        masks = env.env_method("action_masks")
        inner = [one.unwrapped.mask for one in env.unwrapped.envs]  # type: ignore[attr-defined]
        assert np.stack(masks).tolist() == np.stack(inner).tolist()
        assert np.stack(env.env_method("action_masks", indices=[1])).tolist() == [inner[1].tolist()]
        layout = env.unwrapped.envs[0].unwrapped.layout  # type: ignore[attr-defined]
        chosen = [[m[s : s + n].argmax() for s, n in zip(layout.starts, layout.sizes, strict=True)] for m in masks]
        env.step(np.array(chosen)[:, 0] if actions == "discrete" else np.array(chosen))
    env.reset()
    assert len(env.get_attr("mask")) == len(env.env_method("reset")) == 2


def test_a_source_without_masks_is_refused_by_the_place_that_has_them() -> None:
    env = vec_env("info")
    env.reset()
    with pytest.raises(ValueError, match=r"there are no action masks \(`mask_source` = 'vec_env'\): they are in 'info'"):
        find_mask_source(env, "vec_env")

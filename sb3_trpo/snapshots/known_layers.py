"""List the environments and wrappers whose state is known: their constant attributes, and their state outside attributes."""

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_trpo.envs.lean_vec_env import LeanVecEnv
from sb3_trpo.snapshots.mujoco_state import MujocoLayer


class Inside(Protocol):
    """Saves and restores the state of a layer that is not in its attributes."""

    def get(self) -> Any:
        """
        Save the state.

        :return: the state as plain data
        """

    def set(self, state: Any) -> None:
        """
        Restore a state.

        :param state: a result of :meth:`get`
        """


class KnownLayer(NamedTuple):
    """
    Describes the state of a class of environments or wrappers.

    :param constant: names of attributes that are not part of the state, or that ``inside`` saves
    :param inside: makes an object that saves the state outside the attributes; None: there is no such state
    :param only: names of the attributes that the class itself changes, all plain data; a string names a single number. Saving
        these is enough if all layers are known, because a custom layer may change other attributes
    :param calls_functions: whether it calls the user's functions, which may do anything
    """

    constant: frozenset[str]
    inside: Callable[[Any], Inside] | None = None
    only: tuple[str, ...] | str | None = None
    calls_functions: bool = False


class _Stack:
    """Saves the frames of ``VecFrameStack``."""

    def __init__(self, env: VecFrameStack) -> None:
        self._env = env

    def _stacks(self) -> list[Any]:
        stacked = self._env.stacked_obs
        return list(getattr(stacked, "sub_stacked_observations", {}).values()) or [stacked]

    def get(self) -> list[np.ndarray]:
        return [stack.stacked_obs.copy() for stack in self._stacks()]

    def set(self, state: list[np.ndarray]) -> None:
        for stack, frames in zip(self._stacks(), state, strict=True):
            stack.stacked_obs = frames.copy()


class _Statistics:
    """Saves the running statistics of gymnasium's ``NormalizeObservation`` or ``NormalizeReward``."""

    def __init__(self, env: Any) -> None:
        self._statistics = getattr(env, "obs_rms", None) or env.return_rms

    def get(self) -> tuple[np.ndarray, np.ndarray, float]:
        return np.array(self._statistics.mean), np.array(self._statistics.var), self._statistics.count

    def set(self, state: tuple[np.ndarray, np.ndarray, float]) -> None:
        mean, var, self._statistics.count = state
        self._statistics.mean, self._statistics.var = mean.copy(), var.copy()


class _Normalizer:
    """Saves the running statistics of SB3's ``VecNormalize``."""

    def __init__(self, env: VecNormalize) -> None:
        self._env = env

    def _statistics(self) -> list[RunningMeanStd]:
        of_observations: Any = getattr(self._env, "obs_rms", {})
        named = of_observations if isinstance(of_observations, dict) else {"": of_observations}
        return [*(named[key] for key in sorted(named)), self._env.ret_rms]

    def get(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        return [(np.array(part.mean), np.array(part.var), part.count) for part in self._statistics()]

    def set(self, state: list[tuple[np.ndarray, np.ndarray, float]]) -> None:
        for part, (mean, var, count) in zip(self._statistics(), state, strict=True):
            part.mean, part.var, part.count = mean.copy(), var.copy(), count


class _MonitorFile:
    """Saves the seconds since a monitor was made, and the number of rows of its file, if it has one."""

    def __init__(self, env: Monitor | VecMonitor) -> None:
        self._env = env

    def _path(self) -> Path | None:
        writer: Any = self._env.results_writer
        return None if writer is None else Path(writer.file_handler.name)

    def get(self) -> tuple[float, int]:
        path = self._path()
        return time.time() - self._env.t_start, 0 if path is None else len(path.read_bytes().splitlines())

    def set(self, state: tuple[float, int]) -> None:
        seconds, n_lines = state
        self._env.t_start = time.time() - seconds
        path = self._path()
        if path is not None:  # a monitor that appends goes on after the rows of the episodes that are played again
            os.truncate(path, sum(map(len, path.read_bytes().splitlines(keepends=True)[:n_lines])))


class _Seeds:
    """Saves the seeds and options for the next reset of ``DummyVecEnv``, which replaces these lists but never changes them."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def get(self) -> tuple[list[int | None], list[dict[str, Any]]]:
        return self._env._seeds, self._env._options

    def set(self, state: tuple[list[int | None], list[dict[str, Any]]]) -> None:
        self._env._seeds, self._env._options = state


class _Checker:
    """Restores gymnasium's ``PassiveEnvChecker``, which checks the first steps only, and only after a reset."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def get(self) -> None:
        """Save nothing, because the steps do not depend on its state."""

    def set(self, state: None) -> None:
        if not self._env.checked_reset:  # a new checker that continues in the middle of an episode
            self._env.checked_reset = self._env.checked_step = self._env.checked_data_reuse = True


class _Game:
    """Saves a game of the Arcade Learning Environment, including its random generator."""

    def __init__(self, env: Any) -> None:
        if env.ale.getFloat("repeat_action_probability") > 0.0:
            raise ValueError(
                "a game with sticky actions repeats its last action, which states of the Arcade Learning Environment leave "
                "out; make it with `repeat_action_probability=0`"
            )
        self._env = env

    def get(self) -> bytes:
        state: bytes = self._env.ale.cloneState(include_rng=True).serialize()
        return state

    def set(self, state: bytes) -> None:
        from ale_py import ALEState

        self._env.ale.restoreState(ALEState(state))


_ENV = frozenset(
    [
        *("spec", "metadata", "render_mode", "action_space", "observation_space", "_ezpickle_args", "_ezpickle_kwargs"),
        *("_np_random", "_np_random_seed"),  # saved separately for every environment
        *("screen", "clock", "isopen", "screen_width", "screen_height", "screen_dim"),
    ]
)
_WRAPPER = frozenset(["env", "_action_space", "_observation_space", "_metadata", "_cached_spec", "_saved_kwargs"])
_VEC_ENV = frozenset(
    [
        *("num_envs", "observation_space", "action_space", "render_mode", "metadata", "envs", "keys", "reset_infos"),
        *("buf_obs", "buf_dones", "buf_rews", "buf_infos", "actions", "venv", "class_attributes", "_seeds", "_options"),
    ]
)
_MUJOCO = frozenset(["model", "data", "mujoco_renderer", "observation_structure", "fullpath"])
_CHECKER = frozenset(
    ["checked_reset", "checked_step", "checked_render", "checked_data_reuse", "close_called", "_previous_data"]
)
# Branches do not change these: `training` is off in them, so the statistics stay the same.
_NORMALIZER = frozenset(
    [
        *("obs_rms", "ret_rms", "training", "norm_obs", "norm_reward", "norm_obs_keys", "obs_spaces"),
        *("clip_obs", "clip_reward", "gamma", "epsilon"),
    ]
)
_MONITOR = frozenset(["results_writer", "t_start", "reset_keywords", "info_keywords", "allow_early_resets"])

_WRAPPERS = [
    *("AddRenderObservation", "AtariPreprocessing", "Autoreset", "ClipAction", "ClipReward", "DelayObservation"),
    *("DiscretizeAction", "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation"),
    *("FrameStackObservation", "GrayscaleObservation", "MaxAndSkipObservation"),
    *("RecordEpisodeStatistics", "RepeatAction", "RescaleAction", "RescaleObservation", "ReshapeObservation"),
    *("ResizeObservation", "StickyAction", "TimeAwareObservation"),
]
"""Gymnasium's wrappers whose state is plain data in their attributes. Some versions of gymnasium lack some of them."""


@cache
def known_layers() -> dict[type, KnownLayer]:
    """
    List the known layers. MuJoCo and the Arcade Learning Environment are imported only here, because that takes long.

    :return: a description of each known class, which holds for its subclasses too
    """
    atari = ["StickyActionEnv", "NoopResetEnv", "FireResetEnv", "EpisodicLifeEnv", "MaxAndSkipEnv", "ClipRewardEnv"]
    return {
        **dict.fromkeys([AcrobotEnv, Continuous_MountainCarEnv, MountainCarEnv], KnownLayer(_ENV, only=("state",))),
        CartPoleEnv: KnownLayer(_ENV, only=("state", "steps_beyond_terminated")),
        PendulumEnv: KnownLayer(_ENV, only=("state", "last_u")),
        **_toy_text(),
        **{getattr(wrappers, name): KnownLayer(_WRAPPER) for name in _WRAPPERS if hasattr(wrappers, name)},
        **{getattr(atari_wrappers, name): KnownLayer(_WRAPPER) for name in [*atari, "WarpFrame", "AtariWrapper"]},
        **dict.fromkeys(
            [wrappers.TransformAction, wrappers.TransformObservation, wrappers.TransformReward],
            KnownLayer(_WRAPPER, calls_functions=True),
        ),
        **dict.fromkeys(_time_limits(), KnownLayer(_WRAPPER, only="_elapsed_steps")),
        wrappers.OrderEnforcing: KnownLayer(_WRAPPER, only="_has_reset"),
        wrappers.FrameStackObservation: KnownLayer(_WRAPPER | {"stacked_obs"}),
        wrappers.PassiveEnvChecker: KnownLayer(_WRAPPER | _CHECKER, _Checker),
        wrappers.NormalizeObservation: KnownLayer(_WRAPPER | {"obs_rms"}, _Statistics),
        wrappers.NormalizeReward: KnownLayer(_WRAPPER | {"return_rms"}, _Statistics),
        **dict.fromkeys([DummyVecEnv, LeanVecEnv], KnownLayer(_VEC_ENV, _Seeds)),
        VecTransposeImage: KnownLayer(_VEC_ENV | {"skip", "image_space_keys"}),
        VecExtractDictObs: KnownLayer(_VEC_ENV | {"key"}),
        VecCheckNan: KnownLayer(_VEC_ENV | {"_actions", "_observations"}),
        VecFrameStack: KnownLayer(_VEC_ENV | {"stacked_obs"}, _Stack),
        VecNormalize: KnownLayer(_VEC_ENV | _NORMALIZER),
        **_mujoco(),
        **_games(),
        **_masked(),
    }


@cache
def layers_of_runs() -> dict[type, KnownLayer]:
    """
    List the known layers whose whole state matters to a run that goes on: monitors and statistics besides.

    :return: a description of each known class, which holds for its subclasses too
    """
    return {
        **known_layers(),
        Monitor: KnownLayer(_WRAPPER | _MONITOR, _MonitorFile),
        VecMonitor: KnownLayer(_VEC_ENV | _MONITOR, _MonitorFile),
        VecNormalize: KnownLayer(_VEC_ENV | _NORMALIZER, _Normalizer),
    }


def _time_limits() -> list[type]:
    """Find gymnasium's class and the subclass that RL Zoo puts in its place."""
    return [cls for cls in wrappers.TimeLimit.__mro__ if cls.__name__.endswith("TimeLimit")]


def _toy_text() -> dict[type, KnownLayer]:
    from gymnasium.envs import toy_text

    tables = _ENV | {"P", "initial_state_distrib", "desc"}  # of transitions, which the steps only read
    cards = ("dealer", "player", "dealer_top_card_suit", "dealer_top_card_value_str")
    return {
        toy_text.BlackjackEnv: KnownLayer(_ENV, only=cards),
        toy_text.CliffWalkingEnv: KnownLayer(tables, only=("s", "lastaction")),
        toy_text.FrozenLakeEnv: KnownLayer(tables, only=("s", "lastaction")),
        toy_text.TaxiEnv: KnownLayer(tables, only=("s", "lastaction", "fickle_step", "taxi_orientation")),
    }


def _mujoco() -> dict[type, KnownLayer]:
    try:
        from gymnasium.envs.mujoco import MujocoEnv
    except (ImportError, gym.error.DependencyNotInstalled):
        return {}
    return {MujocoEnv: KnownLayer(_ENV | _MUJOCO, MujocoLayer)}


def _masked() -> dict[type, KnownLayer]:
    try:
        from sb3_contrib.common.wrappers import ActionMasker
    except ImportError:
        return {}
    return {ActionMasker: KnownLayer(_WRAPPER | {"_action_mask_fn"}, calls_functions=True)}


def _games() -> dict[type, KnownLayer]:
    try:
        from ale_py.env import AtariEnv
    except ImportError:
        return {}
    return {AtariEnv: KnownLayer(_ENV | {"ale", "_action_set"}, _Game)}

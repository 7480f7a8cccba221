"""The entries of the hyperparameter files, as arguments for Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import yaml
from rl_zoo3.utils import get_wrapper_class
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch import nn

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.checks import described

_NOT_ENVIRONMENTS = ("default", "common", "atari")
"""Keys of a file that are no environment ids."""


@dataclass(frozen=True)
class Tuned:
    """
    Holds one entry of a hyperparameter file: what its environments and its model are made of.

    :param env_id: environment id
    :param algorithm: the class that the entry belongs to
    :param entry: key of the entry in its file: the environment id, ``atari`` or ``default``
    :param is_tuned: whether the file marks the entry "Tuned"; any other is a starting point
    :param n_timesteps: budget, env steps
    :param arguments: arguments of the class, without the environment: ``TRPO(env=env, **arguments)``
    :param vec_env: arguments of SB3's ``make_vec_env``, without the environment id
    :param normalize: arguments of SB3's ``VecNormalize``; None: the entry does without
    :param frame_stack: frames that ``VecFrameStack`` stacks, around the other wrappers; None: the entry does without
    """

    env_id: str
    algorithm: type[TRPO]
    entry: str
    is_tuned: bool
    n_timesteps: int
    arguments: dict[str, Any]
    vec_env: dict[str, Any]
    normalize: dict[str, Any] | None
    frame_stack: int | None

    def make_env(self, seed: int | None = None, evaluation: bool = False, **kwargs: Any) -> VecEnv:
        """
        Make the environments with their wrappers, as ``sb3-trpo train`` does.

        :param seed: seed of the environments
        :param evaluation: whether ``VecNormalize`` leaves its statistics as they are and the rewards raw; SB3's
            ``EvalCallback`` copies the statistics of the training there
        :param kwargs: arguments of ``make_vec_env`` that replace the entry's, such as ``n_envs=1``
        :return: the environments
        """
        env = make_vec_env(self.env_id, seed=seed, **{**self.vec_env, **kwargs})
        if self.normalize is not None:
            env = VecNormalize(env, **self.normalize)
            env.training, env.norm_reward = not evaluation, env.norm_reward and not evaluation
        return env if self.frame_stack is None else VecFrameStack(env, self.frame_stack)


def read_entry(text: str, env_id: str, algorithm: type[TRPO], allow_default: bool) -> Tuned:
    """
    Read the entry of an environment.

    :param text: a file in RL Zoo's YAML format
    :param env_id: environment id
    :param algorithm: the class that the file belongs to
    :param allow_default: whether an environment without an entry gets the file's default
    :return: the entry
    :raises ValueError: if there is no entry, naming those that there are; if there is no such environment
    """
    entries: dict[str, dict[str, Any]] = yaml.safe_load(text)
    name = _entry_of(entries, env_id, algorithm, allow_default)
    settings = dict(entries[name])
    n_timesteps, frame_stack = int(settings.pop("n_timesteps")), settings.pop("frame_stack", None)
    normalize = _normalization(settings)
    if isinstance(settings.get("policy_kwargs"), str):  # Python, as RL Zoo has it; the file is part of the package
        settings["policy_kwargs"] = eval(settings["policy_kwargs"], {"nn": nn})
    vec_env = {"n_envs": settings.pop("n_envs", 1)} | _wrappers(settings)
    is_tuned = name in _marked_tuned(text)
    return Tuned(env_id, algorithm, name, is_tuned, n_timesteps, settings, vec_env, normalize, frame_stack)


def _entry_of(entries: dict[str, Any], env_id: str, algorithm: type[TRPO], allow_default: bool) -> str:
    names = [name for name in entries if name not in _NOT_ENVIRONMENTS]
    if env_id in names:
        return env_id
    import rl_zoo3.import_envs  # noqa: F401  registers games, among others; late, because it imports a lot

    spec = gym.registry.get(env_id) if isinstance(env_id, str) else None
    if spec is not None and "atari" in entries and "AtariEnv" in str(spec.entry_point):
        return "atari"
    if spec is not None and allow_default:
        return "default"
    allowed = ", ".join([*names, *(["the id of an Atari game"] if "atari" in entries else [])]) or "nothing else"
    other = "" if spec is None else "; allow_default=True gives the defaults of the class"
    raise ValueError(f"`env_id` must have an entry for {algorithm.__name__}: {allowed}; not {described(env_id)}{other}")


def _normalization(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Take ``normalize`` out of the settings: True, False, or arguments of ``VecNormalize``."""
    normalize = settings.pop("normalize", False)
    if not normalize:
        return None
    arguments = dict(normalize) if isinstance(normalize, dict) else {}
    return arguments | ({"gamma": settings["gamma"]} if "gamma" in settings else {})


def _wrappers(settings: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of ``make_vec_env`` out of the settings."""
    wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = get_wrapper_class(settings)
    settings.pop("env_wrapper", None)
    found = {"env_kwargs": settings.pop("env_kwargs", None), "wrapper_class": wrapper}
    return {name: value for name, value in found.items() if value is not None}


def _marked_tuned(text: str) -> set[str]:
    """Find the entries that the file marks as tuned: a mark holds until the next."""
    tuned, marked = set(), False
    for line in text.splitlines():
        if line.startswith(("# Tuned:", "# To be tuned")):
            marked = line.startswith("# Tuned:")
        elif marked and line[:1].isalpha():
            tuned.add(line.partition(":")[0])
    return tuned

"""Make environments as a user does, games with SB3's ``AtariWrapper``, and register those without velocities."""

import importlib
from contextlib import suppress
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

gym.register_envs(ale_py)
with suppress(ImportError):  # optional: registers its environments
    importlib.import_module("popgym")


def is_game(env_id: str) -> bool:
    """
    Tell games from other environments.

    :param env_id: environment id
    :return: whether it is an Atari game
    """
    return "NoFrameskip" in env_id or env_id.startswith("ALE/")


def make_env(env_id: str, n_envs: int, seed: int) -> VecEnv:
    """
    Make environments, a game with four frames stacked.

    :param env_id: environment id
    :param n_envs: number of environments
    :param seed: of the environments
    :return: the environments
    """
    if is_game(env_id):
        return VecFrameStack(make_atari_env(env_id, n_envs, seed=seed), 4)
    return make_vec_env(env_id, n_envs, seed=seed)


class HopperNoVel(gym.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """``Hopper-v5`` whose observations are the height and the angles alone, shape (5,)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(gym.make("Hopper-v5", **kwargs).unwrapped)
        self.observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Leave the velocities out."""
        return observation[:5]


gym.register("HopperNoVel-v5", HopperNoVel, max_episode_steps=1_000)

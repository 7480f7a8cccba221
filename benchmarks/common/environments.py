"""Make environments as a user does, games with SB3's ``AtariWrapper``."""

import ale_py
import gymnasium as gym
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

gym.register_envs(ale_py)


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

"""Evaluates policies with memory, with action masks, or with both."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common import evaluation
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.envs.masked_vec_env import MaskedVecEnv


class _WithMasks:
    """
    A model that asks the environments for the masks of each prediction.

    :param model: the model
    :param env: the environments that are evaluated in
    """

    def __init__(self, model: MaskableTRPO, env: MaskedVecEnv) -> None:
        self._predict: Any = model.predict
        self._env = env

    def predict(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        predicted: tuple[np.ndarray, tuple[np.ndarray, ...] | None] = self._predict(
            *args, **kwargs, action_masks=self._env.action_masks()
        )
        return predicted


def evaluate_policy(
    model: TRPO, env: gym.Env[Any, Any] | VecEnv, n_eval_episodes: int = 10, *, use_masking: bool = True, **kwargs: Any
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """
    Evaluate a model as SB3's ``evaluate_policy`` does, with action masks if the model was trained with them.

    The memory of a policy is passed on from step to step. (sb3-contrib's function for masks loses it.)

    :param model: the model
    :param env: the environments to evaluate in
    :param n_eval_episodes: number of episodes
    :param use_masking: whether to use action masks, if the model was trained with them
    :param kwargs: further arguments of SB3's function, such as ``deterministic`` and ``return_episode_rewards``
    :return: mean and standard deviation of the returns; with ``return_episode_rewards=True``, returns and lengths
    :raises ValueError: if the model was trained with masks and the environments have none
    """
    venv = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    evaluated: Any = model
    if use_masking and isinstance(model, MaskableTRPO) and model.trained_with_masks:
        venv = MaskedVecEnv(venv, model.mask_source)
        evaluated = _WithMasks(model, venv)
    return evaluation.evaluate_policy(evaluated, venv, n_eval_episodes, **kwargs)

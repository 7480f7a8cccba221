"""The vectorised environment that is made around a user's single environment: SB3's, without its deep copies."""

from copy import deepcopy

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.patch_gym import _patch_env
from stable_baselines3.common.vec_env.util import dict_to_obs


class LeanVecEnv(DummyVecEnv):
    """
    A ``DummyVecEnv`` that copies observations, rewards, dones and infos once per step instead of deep-copying them.

    As with ``DummyVecEnv``, a step never changes what an earlier step returned. Only values nested inside an info are not
    copied.
    """

    def step_wait(self) -> VecEnvStepReturn:
        """
        Step all environments.

        :return: observations, rewards of shape (n_envs,), dones of shape (n_envs,), infos
        """
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        infos = []
        for i, env in enumerate(self.envs):
            obs, reward, terminated, truncated, env_info = env.step(self.actions[i])
            rewards[i] = reward
            done = bool(terminated or truncated)
            info = dict(env_info)
            info["TimeLimit.truncated"] = truncated and not terminated
            if done:
                dones[i] = True
                # the reset may reuse the environment's observation
                info["terminal_observation"] = deepcopy(obs)
                obs, self.reset_infos[i] = env.reset()
            self._save_obs(i, obs)
            infos.append(info)
        self.buf_rews, self.buf_dones, self.buf_infos = rewards, dones, infos
        return self._obs_from_buf(), rewards, dones, infos

    def _obs_from_buf(self) -> VecEnvObs:
        if len(self.buf_obs) == 1 and not isinstance(self.observation_space, (spaces.Dict, spaces.Tuple)):
            return next(iter(self.buf_obs.values())).copy()
        return dict_to_obs(self.observation_space, {key: value.copy() for key, value in self.buf_obs.items()})


def wrap_bare_env(env: GymEnv, verbose: int, monitor_wrapper: bool) -> LeanVecEnv:
    """
    Vectorise an environment that is not vectorised yet, as SB3 does.

    :param env: the environment
    :param verbose: 1 to print the wrappers
    :param monitor_wrapper: whether to wrap it in a ``Monitor`` unless it has one
    :return: the vectorised environment
    """
    bare = _patch_env(env)
    if monitor_wrapper and not is_wrapped(bare, Monitor):
        if verbose >= 1:
            print("Wrapping the env with a `Monitor` wrapper")
        bare = Monitor(bare)
    if verbose >= 1:
        print("Wrapping the env in a LeanVecEnv, a DummyVecEnv without deep copies.")
    return LeanVecEnv([lambda: bare])

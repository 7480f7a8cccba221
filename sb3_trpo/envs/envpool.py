"""EnvPool's environments, which step in C++ threads, as SB3's ``VecEnv``; needs ``pip install sb3-trpo[envpool]``."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_trpo.checks import check_integers

Infos = list[dict[str, Any]]


class EnvPoolVecEnv(VecEnv):
    """
    Environments of EnvPool with the conventions of SB3.

    An environment that ended is reset within the same step, as in ``DummyVecEnv``: the observation returned is the first of
    the new episode, the last one is ``info["terminal_observation"]``, ``info["TimeLimit.truncated"]`` tells a time limit from
    an end, and ``info["episode"]`` has the episode's return and length and the seconds so far, as with ``Monitor``.

    :param env_id: EnvPool's id, for instance ``HalfCheetah-v5``
    :param n_envs: number of environments
    :param seed: seed of the environments; :meth:`seed` sets another
    :param num_threads: threads that step them; 0: EnvPool's choice
    :param settings: further settings of EnvPool
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have the environment, its observations are a dict, a number is out of range, or a
        setting has another name here
    """

    _length_of_a_step = 1
    """What a step adds to the length of an episode."""

    def __init__(self, env_id: str, n_envs: int = 1, seed: int | None = None, num_threads: int = 0, **settings: Any) -> None:
        self._envpool = _import_envpool()
        refuse_settings(settings, {"num_envs": "use `n_envs`", "batch_size": "all environments step at once"})
        check_integers(1, n_envs=n_envs)
        check_integers(0, num_threads=num_threads, seed=0 if seed is None else seed)
        if env_id not in self._envpool.list_all_envs():
            raise ValueError(f"EnvPool has no environment `env_id` = {env_id!r}; `envpool.list_all_envs()` has their names")
        self.env_id = env_id
        self._settings = {"num_envs": n_envs, "num_threads": num_threads, **settings}
        self._pool = self._make(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
        if not isinstance(self._pool.observation_space, gym.spaces.Box):
            self._pool.close()
            raise ValueError(f"the observations of `env_id` = {env_id!r} must be a Box, not {self._pool.observation_space}")
        super().__init__(n_envs, self._pool.observation_space, self._pool.action_space)
        self._all = np.arange(n_envs, dtype=np.int32)
        self._actions = np.zeros(0)
        self._returns, self._lengths = np.zeros(n_envs), np.zeros(n_envs, dtype=np.int64)
        self._started = time.time()
        self._begin(self._all)

    def _make(self, seed: int) -> Any:
        # SB3 draws seeds of 32 bits, EnvPool takes 31 and gives the environments consecutive ones
        return self._envpool.make(self.env_id, env_type="gymnasium", seed=seed % (2**31 - 2**16), **self._settings)

    def _begin(self, ids: np.ndarray) -> None:
        """Clear the statistics of the episode."""
        self._returns[ids], self._lengths[ids] = 0.0, 0

    def reset(self) -> VecEnvObs:
        """
        :return: first observations, shape (n_envs, ...)
        """
        if any(seed is not None for seed in self._seeds):
            self._pool.close()
            self._pool = self._make(int(self._seeds[0] or 0))
            self._reset_seeds()
        self._reset_options()
        self._begin(self._all)
        return self._first_observations()

    def _first_observations(self) -> np.ndarray:
        observations: np.ndarray = self._pool.reset()[0]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, ...)
        :raises ValueError: if the shape is another, or a discrete action is out of range
        """
        self._actions = np.asarray(actions)
        shape = (self.num_envs, *(self.action_space.shape or ()))
        if self._actions.shape != shape:  # EnvPool would read past their end
            raise ValueError(f"`actions` must be of shape {shape}, not {self._actions.shape}")
        if isinstance(self.action_space, gym.spaces.Discrete):
            n = int(self.action_space.n)
            outside = self._actions[(self._actions < 0) | (self._actions >= n)]
            if len(outside):
                raise ValueError(f"an action must be in 0 to {n - 1}, not {outside[0]}")

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards of shape (n_envs,), dones of shape (n_envs,), infos
        """
        observations, rewards, terminated, truncated, infos = self._advance(self._actions, self._all)
        dones = terminated | truncated
        for i, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        ended = np.flatnonzero(dones).astype(np.int32)
        if len(ended):
            observations = observations.copy()
            for i in ended.tolist():
                infos[i]["terminal_observation"] = observations[i].copy()
            observations[ended] = self._restart(ended)
        return observations, rewards, dones, infos

    def _advance(self, actions: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Step k environments; their rewards go to the statistics, which are reported where an episode ends."""
        actions = np.asarray(actions, dtype=self._pool.action_space.dtype)
        observations, rewards, terminated, truncated, self._pool_info = self._pool.step(actions, ids)
        self._returns[ids] += rewards
        self._lengths[ids] += self._length_of_a_step
        infos: Infos = [{} for _ in ids]
        for row in np.flatnonzero(terminated | truncated):
            infos[row]["episode"] = self._statistics(ids[row])
            self._begin(ids[row : row + 1])
        return observations, rewards.astype(np.float32), terminated, truncated, infos

    def _statistics(self, i: int) -> dict[str, float]:
        seconds = round(time.time() - self._started, 6)
        return {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}

    def _restart(self, ids: np.ndarray) -> np.ndarray:
        """First observations of new episodes; EnvPool resets what ended when it is stepped again."""
        no_action = np.zeros((len(ids), *(self.action_space.shape or ())), dtype=self._pool.action_space.dtype)
        observations: np.ndarray = self._pool.step(no_action, ids)[0]
        return observations

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        :param attr_name: an attribute of the pool
        :param indices: of which environments
        :return: its value, once an environment
        """
        value = None if attr_name == "render_mode" else getattr(self._pool, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        :raises NotImplementedError: EnvPool's environments cannot be changed one by one
        """
        raise NotImplementedError("the environments of an EnvPool have no attributes of their own")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        :raises NotImplementedError: EnvPool's environments cannot be called one by one
        """
        raise NotImplementedError("the environments of an EnvPool have no methods of their own")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        :param wrapper_class: a wrapper
        :param indices: of which environments
        :return: True for ``Monitor``, whose statistics this class reports
        """
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


def refuse_settings(settings: dict[str, Any], instead: dict[str, str]) -> None:
    for name in settings.keys() & instead.keys():
        raise ValueError(f"`{name}` = {settings[name]!r} cannot be set here; {instead[name]}")


def _import_envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ImportError("EnvPool is not installed: pip install sb3-trpo[envpool]") from error
    return envpool

"""EnvPool's environments, which step in C++ threads, as SB3's ``VecEnv``; needs ``pip install sb3-trpo[envpool]``."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_trpo.checks import check_integers
from sb3_trpo.envs.batched import flat_arrays, flat_space, row, with_rows

Infos = list[dict[str, Any]]

_ABOUT_THE_POOL = ("env_id", "players", "elapsed_step")
"""Keys of EnvPool's infos that describe the pool."""


class EnvPoolVecEnv(VecEnv):
    """
    Environments of EnvPool with the conventions of SB3.

    A step that ends an episode also resets the environment, as in ``DummyVecEnv``. It returns the first observation of the
    new episode; ``info["terminal_observation"]`` has the last one of the old episode. ``info["TimeLimit.truncated"]`` tells
    whether a time limit ended it, and ``info["episode"]`` has its return, its length and the seconds so far, as with
    ``Monitor``. The other keys of an info are EnvPool's; ``success`` is also called ``is_success``, as which SB3 logs it.

    Observations may be of any space that SB3 knows. The keys of nested dicts are joined by a slash, as in
    ``achieved_goal/kettle``.

    :param env_id: EnvPool's id, for instance ``HalfCheetah-v5``
    :param n_envs: number of environments
    :param seed: seed of the environments; ``seed`` sets another
    :param num_threads: threads that step them; 0: EnvPool's choice
    :param settings: further settings of EnvPool
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have the environment, it has several players, a number is out of range, or a
        setting has another name here
    """

    _length_of_a_step = 1
    """Length that a step adds to an episode."""

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
        players = self._pool.config.get("max_num_players", 1)
        if players != 1:
            self._pool.close()
            raise ValueError(f"`env_id` = {env_id!r} must be an environment of one player, and it has {players}")
        observation_space = flat_space(self._pool.observation_space, _with_infinite_bounds)
        super().__init__(n_envs, observation_space, _with_infinite_bounds(self._pool.action_space))
        self._all = np.arange(n_envs, dtype=np.int32)
        self._actions = np.zeros(0)
        self._returns, self._lengths = np.zeros(n_envs), np.zeros(n_envs, dtype=np.int64)
        self._started = time.time()
        self._begin(self._all)

    def _make(self, seed: int) -> Any:
        # SB3 draws 32-bit seeds; EnvPool takes 31 bits, and gives consecutive seeds to its environments
        return self._envpool.make(self.env_id, env_type="gymnasium", seed=seed % (2**31 - 2**16), **self._settings)

    def _begin(self, ids: np.ndarray) -> None:
        """Clear the statistics of the episode."""
        self._returns[ids], self._lengths[ids] = 0.0, 0

    def reset(self) -> VecEnvObs:
        """
        Reset all environments.

        :return: first observations, shape (n_envs, ...)
        """
        if any(seed is not None for seed in self._seeds):
            self._pool.close()
            self._pool = self._make(int(self._seeds[0] or 0))
            self._reset_seeds()
        self._reset_options()
        self._begin(self._all)
        observations: VecEnvObs = self._first_observations()
        return observations

    def _first_observations(self) -> Any:
        return flat_arrays(self._pool.reset()[0], self.observation_space)

    def step_async(self, actions: np.ndarray) -> None:
        """
        Store the actions of the next step.

        :param actions: shape (n_envs, ...)
        :raises ValueError: if they have another shape, or a whole-numbered action is out of range, NaN or has a fraction
        """
        self._actions = np.asarray(actions)
        shape = (self.num_envs, *(self.action_space.shape or ()))
        if self._actions.shape != shape:  # EnvPool would read past their end
            raise ValueError(f"`actions` must be of shape {shape}, not {self._actions.shape}")
        if np.issubdtype(self.action_space.dtype or np.float32, np.integer):
            _check_whole(self._actions, *_whole_bounds(self.action_space))

    def step_wait(self) -> VecEnvStepReturn:
        """
        Step all environments.

        :return: observations, rewards of shape (n_envs,), dones of shape (n_envs,), infos
        """
        observations, rewards, terminated, truncated, infos = self._advance(self._actions, self._all)
        dones = terminated | truncated
        for i, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        ended = np.flatnonzero(dones).astype(np.int32)
        if len(ended):
            for i in ended.tolist():
                infos[i]["terminal_observation"] = row(observations, i)
            observations = with_rows(observations, ended, self._restart(ended))
        return observations, rewards, dones, infos

    def _advance(self, actions: np.ndarray, ids: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Step k environments and update their statistics, which are reported when an episode ends."""
        actions = np.asarray(actions, dtype=self._pool.action_space.dtype)
        observations, rewards, terminated, truncated, self._pool_info = self._pool.step(actions, ids)
        self._returns[ids] += rewards
        self._lengths[ids] += self._length_of_a_step
        infos = self._infos(len(ids))
        for k in np.flatnonzero(terminated | truncated):
            infos[k]["episode"] = self._statistics(ids[k])
            self._begin(ids[k : k + 1])
        observations = flat_arrays(observations, self.observation_space)
        return observations, rewards.astype(np.float32), terminated, truncated, infos

    def _infos(self, n: int) -> Infos:
        """Make the infos of n environments of EnvPool's arrays."""
        columns = {name: values for name, values in self._pool_info.items() if name not in _ABOUT_THE_POOL}
        if "success" in columns:
            columns.setdefault("is_success", columns["success"] != 0)
        if not columns:
            return [{} for _ in range(n)]
        lists = (values.tolist() if values.ndim == 1 else list(values.copy()) for values in columns.values())
        return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]

    def _statistics(self, i: int) -> dict[str, float]:
        seconds = round(time.time() - self._started, 6)
        return {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}

    def _restart(self, ids: np.ndarray) -> Any:
        """Return the first observations of new episodes: EnvPool resets an ended environment at its next step."""
        no_action = np.zeros((len(ids), *(self.action_space.shape or ())), dtype=self._pool.action_space.dtype)
        return flat_arrays(self._pool.step(no_action, ids)[0], self.observation_space)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        Read an attribute of the pool, which all environments share.

        :param attr_name: name of the attribute
        :param indices: indices of environments; None: all
        :return: its value, once per environment
        """
        value = None if attr_name == "render_mode" else getattr(self._pool, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Refuse to set an attribute.

        :raises NotImplementedError: always, because EnvPool's environments cannot be changed one by one
        """
        raise NotImplementedError(f"cannot set `{attr_name}`: the environments of an EnvPool have no separate attributes")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Refuse to call a method.

        :raises NotImplementedError: always, because EnvPool's environments cannot be called one by one
        """
        raise NotImplementedError(f"cannot call `{method_name}`: the environments of an EnvPool have no separate methods")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        Tell whether environments have a wrapper.

        :param wrapper_class: class of the wrapper
        :param indices: indices of environments; None: all
        :return: True for ``Monitor``, whose statistics this class reports; once per environment
        """
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


def _with_infinite_bounds(space: gym.Space[Any]) -> gym.Space[Any]:
    """Replace bounds that are the limits of C++'s floats, which EnvPool gives where there is no bound."""
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return space
    limits = [np.finfo(dtype) for dtype in (np.float32, np.float64)]
    smallest = [value for limit in limits for value in (limit.tiny, limit.min)]  # `numeric_limits::min` is tiny, not lowest
    largest = [limit.max for limit in limits]
    low = np.where(np.isin(space.low, smallest), -np.inf, space.low).astype(space.dtype)
    high = np.where(np.isin(space.high, largest), np.inf, space.high).astype(space.dtype)
    return gym.spaces.Box(low, high, space.shape, space.dtype.type)


def _whole_bounds(space: gym.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest of the actions that are whole numbers."""
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.asarray(space.start), np.asarray(space.start + space.nvec - 1)
    assert isinstance(space, gym.spaces.Box)
    return space.low, space.high


def _check_whole(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Refuse actions that EnvPool would cut to other whole numbers, or use as a wrong index."""
    refused = ~((actions >= low) & (actions <= high) & (actions == np.trunc(actions)))
    if refused.any():
        at = tuple(np.argwhere(refused)[0])
        least, most = (np.broadcast_to(bound, actions.shape)[at] for bound in (low, high))
        whole = "" if np.issubdtype(actions.dtype, np.integer) else "a whole number "
        raise ValueError(f"an action must be {whole}in {least} to {most}, not {actions[at]}")


def refuse_settings(settings: dict[str, Any], instead: dict[str, str]) -> None:
    """
    Refuse settings of EnvPool that a class sets itself.

    :param settings: the user's settings
    :param instead: names of such settings, and what to use instead
    :raises ValueError: naming the setting, its value and what to use instead
    """
    for name in settings.keys() & instead.keys():
        raise ValueError(f"`{name}` = {settings[name]!r} cannot be set here; {instead[name]}")


def _import_envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ImportError("EnvPool is not installed: pip install sb3-trpo[envpool]") from error
    return envpool

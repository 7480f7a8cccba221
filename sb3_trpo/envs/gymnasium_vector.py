"""Vectorised environments of Gymnasium, ale-py's ``AtariVectorEnv`` among them, as SB3's ``VecEnv``."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_trpo.checks import described
from sb3_trpo.envs.batched import flat_arrays, flat_space, row, with_rows

Infos = list[dict[str, Any]]
_FINAL = ("final_obs", "final_info")
"""Keys of Gymnasium's infos for the last step of an episode."""


class GymnasiumVecEnv(VecEnv):
    """
    A ``gymnasium.vector.VectorEnv`` with the conventions of SB3.

    A step that ends an episode also resets the environment, as in ``DummyVecEnv``. It returns the first observation of the
    new episode; ``info["terminal_observation"]`` has the last one of the old episode, and the info itself is that of its last
    step. ``info["TimeLimit.truncated"]`` tells whether a time limit ended it, and ``info["episode"]`` has its return, its
    length and the seconds so far, as with ``Monitor``.

    The environment must be able to reset within a step (``AutoresetMode.SAME_STEP``) or when it is asked to
    (``AutoresetMode.DISABLED``). Gymnasium's default resets in the step after: that step would be a transition that no action
    has caused. Keys of nested dicts of observations are joined by a slash.

    :param env: the environment, for instance of ``gymnasium.make_vec``
    :raises TypeError: if it is no ``VectorEnv``
    :raises ValueError: if it resets in the step after an end, or steps only a part of its environments at a time
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(env, gym.vector.VectorEnv):
            raise TypeError(f"`env` must be a gymnasium.vector.VectorEnv, not {described(env)}")
        self.env = env
        self._same_step = _resets_in_same_step(env)
        space = env.single_observation_space
        n_rows = getattr(env, "batch_size", env.num_envs)
        if n_rows != env.num_envs:
            raise ValueError(
                f"`env` must step all its {env.num_envs} environments at once, not {n_rows}: leave out `batch_size`"
            )
        self._action_dtype = getattr(env.single_action_space, "dtype", None)
        self._short_seeds = type(env.unwrapped).__module__.startswith("ale_py.")  # SB3 draws 32 bits; ALE takes 31
        self._actions = np.zeros(0)
        super().__init__(env.num_envs, flat_space(space), env.single_action_space)
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._started = time.time()

    def reset(self) -> VecEnvObs:
        """
        Reset all environments, with the seeds that :meth:`seed` has set.

        :return: first observations, shape (n_envs, ...), or a dict of such
        :raises ValueError: if environments have different options
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("the environments of a Gymnasium VectorEnv share their options: set the same for all")
        # Gymnasium's environments too count on from the first seed
        seed = self._seeds[0]
        if seed is not None:
            seed = int(seed) % (2**31 - 2**16) if self._short_seeds else int(seed)
        observations, infos = self.env.reset(seed=seed, options=options or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = split_infos(infos, self.num_envs)
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._copied(observations)

    def _copied(self, observations: Any) -> VecEnvObs:
        """Flatten and copy observations, which an environment may write to at its next step."""
        flat: Any = flat_arrays(observations, self.observation_space)
        copied: VecEnvObs = {key: part.copy() for key, part in flat.items()} if isinstance(flat, dict) else flat.copy()
        return copied

    def step_async(self, actions: np.ndarray) -> None:
        """
        Store the actions of the next step.

        :param actions: shape (n_envs, ...)
        """
        self._actions = np.asarray(actions, dtype=self._action_dtype)

    def step_wait(self) -> VecEnvStepReturn:
        """
        Step all environments.

        :return: observations, rewards of shape (n_envs,), dones of shape (n_envs,), infos
        """
        observations, rewards, terminated, truncated, vector_infos = self.env.step(self._actions)
        observations, infos = self._copied(observations), split_infos(vector_infos, self.num_envs)
        rewards, dones = np.asarray(rewards, dtype=np.float32), np.asarray(terminated | truncated, dtype=bool)
        self._returns += rewards
        self._lengths += 1
        if np.count_nonzero(dones):
            observations = self._end_episodes(observations, np.flatnonzero(dones), infos, vector_infos)
        for info, cut_off in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = cut_off
        return observations, rewards, dones, infos

    def _end_episodes(self, observations: Any, ended: np.ndarray, infos: Infos, vector_infos: Mapping[str, Any]) -> Any:
        """Complete the infos of ended episodes, and return the observations with the first ones of the next episodes."""
        if self._same_step:
            of_last_step = split_infos(vector_infos["final_info"], self.num_envs) if "final_info" in vector_infos else infos
            for i in ended.tolist():
                self.reset_infos[i], infos[i] = infos[i], dict(of_last_step[i])
                infos[i]["terminal_observation"] = self._final_observation(vector_infos["final_obs"], i)
        else:
            for i in ended.tolist():
                infos[i]["terminal_observation"] = row(observations, i)
            observations = self._reset_some(observations, ended)
        seconds = round(time.time() - self._started, 6)
        for i in ended.tolist():
            statistics = {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}
            infos[i].setdefault("episode", statistics)
        self._returns[ended], self._lengths[ended] = 0.0, 0
        return observations

    def _final_observation(self, final: Any, i: int) -> Any:
        """Read the last observation of an environment: an object of its own, or a row of arrays."""
        return self._copied(row(final, i) if isinstance(final, dict) else final[i])

    def _reset_some(self, observations: Any, ended: np.ndarray) -> Any:
        """Reset environments that do not reset themselves."""
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[ended] = True
        after, infos = self.env.reset(options={"reset_mask": mask})
        first_infos = split_infos(infos, self.num_envs)
        for i in ended.tolist():
            self.reset_infos[i] = first_infos[i]
        flat = flat_arrays(after, self.observation_space)
        new = {key: part[ended] for key, part in flat.items()} if isinstance(flat, dict) else flat[ended]
        return with_rows(observations, ended, new)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """
        Render the environments.

        :return: one image per environment
        """
        images: Any = self.env.render()
        return [None] * self.num_envs if images is None else list(images)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        Read an attribute of the environments; of the vectorised one if it has no separate environments.

        :param attr_name: name of the attribute
        :param indices: indices of environments; None: all
        :return: its values
        :raises AttributeError: if there is none
        """
        if attr_name != "render_mode" and hasattr(self.env, "get_attr"):
            self._require(attr_name)
            values = self.env.get_attr(attr_name)
        else:
            values = [getattr(self.env, attr_name)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def _require(self, name: str) -> None:
        """Refuse an attribute that an environment lacks: asked for it, a worker of an ``AsyncVectorEnv`` would end."""
        if isinstance(self.env.unwrapped, gym.vector.AsyncVectorEnv):
            env: Any = self.env
            if not all(env.call("has_wrapper_attr", name)):
                raise AttributeError(f"the environments of the {type(env).__name__} have no attribute {name!r}")

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Set an attribute of environments.

        :param attr_name: name of the attribute
        :param value: its value
        :param indices: indices of environments; None: all
        :raises NotImplementedError: if there are no separate environments
        """
        if not hasattr(self.env, "set_attr"):
            raise NotImplementedError(f"cannot set `{attr_name}`: a {type(self.env).__name__} has no separate environments")
        chosen = set(self._get_indices(indices))
        before = [value] * self.num_envs if len(chosen) == self.num_envs else self.get_attr(attr_name)
        self.env.set_attr(attr_name, [value if i in chosen else before[i] for i in range(self.num_envs)])

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Call a method of environments.

        :param method_name: name of the method
        :param method_args: its arguments
        :param indices: indices of environments; None: all
        :param method_kwargs: its keyword arguments
        :return: its results
        :raises AttributeError: if there is none
        :raises NotImplementedError: if the environments cannot be called one by one
        """
        chosen = list(self._get_indices(indices))
        if hasattr(self.env, "envs"):
            return [self.env.envs[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs) for i in chosen]
        if not hasattr(self.env, "call") or chosen != list(range(self.num_envs)):
            name = type(self.env).__name__
            raise NotImplementedError(f"cannot call `{method_name}`: the environments of a {name} cannot be called one by one")
        self._require(method_name)
        return list(self.env.call(method_name, *method_args, **method_kwargs))

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        Tell whether environments have a wrapper.

        :param wrapper_class: class of the wrapper
        :param indices: indices of environments; None: all
        :return: True for ``Monitor``, whose statistics this class reports; once per environment
        """
        envs = getattr(self.env, "envs", None)
        return [
            wrapper_class is Monitor or (envs is not None and is_wrapped(envs[i], wrapper_class))
            for i in self._get_indices(indices)
        ]


def _resets_in_same_step(env: gym.vector.VectorEnv[Any, Any, Any]) -> bool:
    """Tell whether ended environments reset within the step; otherwise they must be reset."""
    mode = env.metadata.get("autoreset_mode")
    if mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        return mode is AutoresetMode.SAME_STEP
    raise ValueError(
        f"GymnasiumVecEnv needs an `env` with `autoreset_mode` = AutoresetMode.SAME_STEP or DISABLED, not {mode}: make it by "
        '`gymnasium.make_vec(..., vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP})`, or '
        "`AtariVectorEnv(..., autoreset_mode=AutoresetMode.SAME_STEP)`; some environments have no other mode: vectorise them "
        'with `vectorization_mode="sync"`'
    )


def split_infos(infos: Mapping[str, Any], n_envs: int) -> Infos:
    """
    Split the infos of a vectorised environment.

    :param infos: arrays with one entry per environment by key, and under the key with a leading "_" which of them count;
        dicts of such
    :param n_envs: number of environments
    :return: one info per environment
    """
    rows: Infos = [{} for _ in range(n_envs)]
    for key, values in infos.items():
        if key in _FINAL or (key.startswith("_") and key[1:] in infos):
            continue
        counts = infos.get(f"_{key}")
        ids: Sequence[int] = range(n_envs) if counts is None else np.flatnonzero(counts).tolist()
        if isinstance(values, Mapping):
            parts: Sequence[Any] = split_infos(values, n_envs)
        elif np.shape(values)[:1] != (n_envs,):  # the same for all
            parts = [values] * n_envs
        else:
            parts = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else list(np.array(values))
        for i in ids:
            rows[i][key] = parts[i]
    return rows

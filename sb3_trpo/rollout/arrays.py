"""Brings what environments return into NumPy: arrays of JAX and torch, and lists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


def in_numpy(quantity: str, value: Any) -> Any:
    """
    Copy numbers of another library, or in lists, into an array. Arrays of NumPy, and dicts of them, are returned as they are.

    :param quantity: name of the value, for the message
    :param value: numbers of any shape, or a dict of such
    :return: an array, or a dict of arrays
    :raises TypeError: naming quantity and type, if NumPy makes no array of numbers of it
    """
    if type(value) is np.ndarray and value.dtype != object:
        return value
    if isinstance(value, dict):
        parts = {key: in_numpy(f"{quantity} {key!r}", part) for key, part in value.items()}
        return value if all(parts[key] is value[key] for key in parts) else parts
    try:
        array = value.detach().cpu().numpy().copy() if isinstance(value, th.Tensor) else np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, types that NumPy lacks
        raise _refusal(quantity, value) from error
    if array.dtype.kind not in "biuf":
        raise _refusal(quantity, value)
    return array


def _refusal(quantity: str, value: Any) -> TypeError:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    of = f" of dtype {value.dtype}" if hasattr(value, "dtype") else ""
    return TypeError(
        f"the {quantity} are a {name}{of}, of which NumPy makes no array of numbers: the environment must return an array of "
        "NumPy, JAX or torch, or a list of numbers"
    )


def step_in_numpy(env: VecEnv) -> Callable[[np.ndarray], VecEnvStepReturn]:
    """
    Make a function that steps environments and returns arrays of NumPy.

    :param env: the environments
    :return: maps actions to observations, rewards, dones and infos
    """

    def step(actions: np.ndarray) -> VecEnvStepReturn:
        observations, rewards, dones, infos = env.step(actions)
        # asked one by one, because this runs at every step
        if type(rewards) is not np.ndarray:
            rewards = in_numpy("rewards", rewards)
        if type(dones) is not np.ndarray:
            dones = in_numpy("dones", dones)
        if type(observations) is not np.ndarray:
            observations = in_numpy("observations", observations)
        return observations, rewards, dones, infos

    return step

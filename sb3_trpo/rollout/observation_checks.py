"""Refuses observations that contradict their space, before they are reshaped or cast without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.preprocessing import maybe_transpose
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo.batch.from_buffer import keeps_sb3_layout
from sb3_trpo.rollout.arrays import in_numpy
from sb3_trpo.rollout.finite_checks import check_finite


def check_shapes(observations: Any, space: spaces.Space[Any], n_envs: int, step: int, quantity: str = "observations") -> None:
    """
    Refuse observations whose shape is not their space's.

    :param observations: shape (n_envs, ...), or a dict of such
    :param space: their space
    :param n_envs: number of environments
    :param step: index of the step in the rollout, for the message
    :param quantity: name of the value, for the message
    :raises ValueError: naming quantity, key and both shapes
    """
    if space.shape is not None and getattr(observations, "shape", None) == (n_envs, *space.shape):
        return  # first, because `isinstance` is slow for a Dict
    if isinstance(space, spaces.Dict):
        _check_keys(f"The {quantity} at step {step} of the rollout", observations, space)
        for key, part in space.spaces.items():
            check_shapes(observations[key], part, n_envs, step, f"{quantity} {key!r}")
        return
    if isinstance(space, spaces.Discrete) and np.shape(observations) == (n_envs, 1):  # as buffers store it
        return
    raise ValueError(
        f"The {quantity} at step {step} of the rollout have shape {np.shape(observations)}, not "
        f"{(n_envs, *(space.shape or ()))}: "
        f"{n_envs} environment{'s' if n_envs > 1 else ''} with the shape {space.shape} of the space {space}."
    )


def stack_terminal(observations: Sequence[Any], space: spaces.Space[Any], envs: Sequence[int], step: int) -> Any:
    """
    Copy terminal observations into rows, and refuse those whose shape is not their space's.

    Images with the channels last are brought into the order of their space, as ``policy.predict`` does.

    :param observations: the terminal observations of k environments
    :param space: their space
    :param envs: indices of the k environments
    :param step: index of the step in the rollout, for the message
    :return: an array with k rows, or a dict of such
    :raises ValueError: naming environment, key and both shapes
    """
    if not isinstance(space, spaces.Dict):
        return _stack(observations, space, envs, step, "terminal observation")
    for obs, env in zip(observations, envs, strict=True):
        _check_keys(f"The terminal observation of environment {env} at step {step} of the rollout", obs, space)
    return {
        key: _stack([obs[key] for obs in observations], part, envs, step, f"terminal observation {key!r}")
        for key, part in space.spaces.items()
    }


def _stack(parts: Sequence[Any], space: spaces.Space[Any], envs: Sequence[int], step: int, quantity: str) -> np.ndarray:
    """Stack the terminal observations of some environments, or one key of them."""
    allowed = [space.shape or ()]
    if isinstance(space, spaces.Discrete):
        allowed.append((1,))
    rows = []
    for part, env in zip((in_numpy(f"{quantity}s", part) for part in parts), envs, strict=True):
        row = part if np.shape(part) in allowed else maybe_transpose(part, space)
        if np.shape(row) not in allowed:
            raise ValueError(
                f"The {quantity} of environment {env} at step {step} of the rollout has shape {np.shape(part)}, "
                f"not the shape {space.shape} of its space {space}."
            )
        rows.append(np.reshape(row, allowed[0]))
    return np.stack(rows)


def _check_keys(what: str, observations: Any, space: spaces.Dict) -> None:
    """Refuse a dict of observations that lacks a key of its space, or has another one."""
    if not isinstance(observations, dict):
        raise ValueError(f"{what} must be a dict with the keys {list(space.spaces)}, not a {type(observations).__name__}.")
    if observations.keys() != space.spaces.keys():
        raise ValueError(f"{what} must have the keys {list(space.spaces)} of their space, not {list(observations)}.")


class ObservationCheck:
    """
    Refuses observations that contradict their space, are not finite, or would change in the rollout buffer.

    :param space: their space
    :param n_envs: number of environments
    :param buffer: any rollout buffer; one that does not store observations as they are may hold anything
    :param normalizer: the ``VecNormalize`` that they came through, if any
    """

    def __init__(self, space: spaces.Space[Any], n_envs: int, buffer: RolloutBuffer, normalizer: VecNormalize | None) -> None:
        self._space, self._n_envs, self._normalizer = space, n_envs, normalizer
        self._shape = None if space.shape is None else (n_envs, *space.shape)
        as_they_are = keeps_sb3_layout(buffer) or type(buffer).add in (RolloutBuffer.add, DictRolloutBuffer.add)
        stored: Any = buffer.observations if as_they_are else {}
        parts = stored if isinstance(stored, dict) else {"": stored}
        self._integers = {key: part.dtype for key, part in parts.items() if part.dtype.kind in "iub"}

    def __call__(self, observations: Any, step: int) -> None:
        """
        Check the observations of one step.

        :param observations: shape (n_envs, ...), or a dict of such
        :param step: index of the step in the rollout, for the message
        :raises ValueError: naming quantity, key and both shapes; step and environment; or key and dtype
        """
        if self._shape is None or getattr(observations, "shape", None) != self._shape:
            check_shapes(observations, self._space, self._n_envs, step)
        check_finite("observation", observations, step, self._normalizer)
        for key, dtype in self._integers.items():
            seen = observations[key] if isinstance(observations, dict) else observations
            if seen.dtype != dtype:
                _check_cast(f"observations of {key!r}" if key else "observations", seen, dtype)


def _check_cast(what: str, seen: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Refuse numbers that change when they are cast to a dtype of integers."""
    if seen.dtype.kind == "f" and np.any(seen != np.trunc(seen)):
        raise ValueError(
            f"{what} have fractions, but their space has dtype {dtype}, so the rollout buffer would truncate "
            "them; give the space a float dtype (with VecNormalize: the space of the environment that it wraps)"
        )
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if seen.size and not (seen.min() >= low and seen.max() <= high):
        raise ValueError(
            f"{what} reach from {seen.min()} to {seen.max()}, but their space has dtype {dtype}, so the rollout buffer "
            f"can hold only {low} to {high}; give the space another dtype"
        )

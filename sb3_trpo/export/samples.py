"""Random values of inputs, for tracing a policy and for comparing it with ``predict``."""

import copy
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trpo.export.inputs import NamedInput, Standardize

_WIDE = 1e3
"""Bounds beyond this size tell nothing about the observations: an environment may write its dtype's largest number there."""


def random_values(given: NamedInput, n: int, rng: np.random.Generator) -> np.ndarray:
    """
    Draw values of an input from its space; where it has statistics, every second one from their normal distribution.

    :param given: the input
    :param n: number of values
    :param rng: the generator
    :return: shape (n, ...), in the space's dtype
    """
    space = given.space
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        values = _random_floats(space, n, rng)
    else:
        own = copy.deepcopy(space)  # the model's has a state
        own.seed(int(rng.integers(2**31)))
        values = np.stack([np.asarray(own.sample(), dtype=space.dtype) for _ in range(n)])
    first = given.steps[0] if given.steps else None
    if isinstance(space, spaces.Box) and isinstance(first, Standardize):
        mean, std = first.mean.numpy(), first.std.numpy()
        near = mean + 2.0 * std * rng.standard_normal((n, *mean.shape))
        values[::2] = _within(space, near)[::2]
    return values


def _random_floats(space: spaces.Box, n: int, rng: np.random.Generator) -> np.ndarray:
    narrow = (np.abs(space.low) <= _WIDE) & (np.abs(space.high) <= _WIDE)
    low, high = np.where(narrow, space.low, 0.0), np.where(narrow, space.high, 0.0)
    shape = (n, *space.shape)
    return _within(space, np.where(narrow, rng.uniform(low, high, shape), 3.0 * rng.standard_normal(shape)))


def _within(space: spaces.Box, values: np.ndarray) -> np.ndarray:
    dtype: Any = space.dtype
    if not np.issubdtype(dtype, np.floating):
        values = np.rint(values)
    clipped: np.ndarray = np.clip(values, space.low, space.high)
    return clipped.astype(dtype)

"""Observations of several environments as SB3 wants them: an array, or one dict of arrays, whose rows are environments."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

SEPARATOR = "/"
"""Separates the keys of nested Dict spaces in one key, because SB3 knows no nested spaces. (Torch allows no dot there.)"""


def flat_space(space: spaces.Space[Any], of_part: Callable[[Any], Any] = lambda part: part) -> spaces.Space[Any]:
    """
    Flatten nested Dict spaces.

    :param space: any space
    :param of_part: replaces each space that is not a Dict
    :return: the space; a Dict of spaces that are no Dicts if it is a Dict
    """
    if not isinstance(space, spaces.Dict):
        part: spaces.Space[Any] = of_part(space)
        return part
    return spaces.Dict({key: of_part(part) for key, part in _leaves(space.spaces, spaces.Dict)})


def flat_arrays(values: Any, space: spaces.Space[Any]) -> Any:
    """
    Flatten nested dicts of observations, in the dtypes of their space.

    :param values: an array whose rows are environments, or nested dicts of such; one observation is allowed too
    :param space: a result of :func:`flat_space`
    :return: an array, or a dict of arrays
    """
    if not isinstance(space, spaces.Dict):
        values = np.asarray(values)
        return values if values.dtype == space.dtype or space.dtype is None else values.astype(space.dtype)
    return {key: flat_arrays(part, space[key]) for key, part in _leaves(values, dict)}


def _leaves(tree: Any, branch: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in tree.items():
        name = f"{prefix}{key}"
        if isinstance(part, branch):
            yield from _leaves(part.spaces if isinstance(part, spaces.Dict) else part, branch, name + SEPARATOR)
        else:
            yield name, part


def row(values: Any, i: int) -> Any:
    """
    Copy the observation of one environment.

    :param values: an array, or a dict of arrays
    :param i: its index
    :return: the observation
    """
    return {key: part[i].copy() for key, part in values.items()} if isinstance(values, dict) else values[i].copy()


def with_rows(values: Any, ids: np.ndarray, new: Any) -> Any:
    """
    Replace the observations of some environments.

    :param values: an array, or a dict of arrays; it is not changed
    :param ids: indices of the environments
    :param new: their observations
    :return: a copy with these rows
    """
    if isinstance(values, dict):
        return {key: with_rows(part, ids, new[key]) for key, part in values.items()}
    copied = values.copy()
    copied[ids] = new
    return copied

"""Turn nested plain data with tensors into data without tensors, and back."""

from typing import Any, NamedTuple

import numpy as np
import torch as th


class TensorState(NamedTuple):
    """
    Stands for a tensor.

    :param array: its numbers
    """

    array: np.ndarray


def without_tensors(value: Any) -> Any:
    """
    Replace the tensors in dicts, lists and tuples.

    :param value: plain data
    :return: the same with :class:`TensorState` in place of every tensor
    """
    if isinstance(value, th.Tensor):
        return TensorState(value.detach().cpu().numpy().copy())
    if type(value) in (list, tuple):
        return type(value)(map(without_tensors, value))
    if isinstance(value, dict):
        return {key: without_tensors(part) for key, part in value.items()}
    return value


def with_tensors(value: Any) -> Any:
    """
    Put the tensors back: the inverse of :func:`without_tensors`.

    :param value: a result of it
    :return: the data with tensors, on the CPU
    """
    if isinstance(value, TensorState):
        return th.from_numpy(value.array.copy())
    if type(value) in (list, tuple):
        return type(value)(map(with_tensors, value))
    if isinstance(value, dict):
        return {key: with_tensors(part) for key, part in value.items()}
    return value

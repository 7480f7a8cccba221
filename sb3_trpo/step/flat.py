"""A list of tensors seen as one flat vector."""

from collections.abc import Sequence

import torch as th


def flatten(tensors: Sequence[th.Tensor]) -> th.Tensor:
    """
    Copy tensors into one flat vector.

    :param tensors: at least one tensor, of any shapes
    :return: their values in order, shape (P,)
    """
    return th.cat([tensor.detach().reshape(-1) for tensor in tensors])


def assign(tensors: Sequence[th.Tensor], vector: th.Tensor) -> None:
    """
    Copy a flat vector into tensors, in place: the inverse of :func:`flatten`, bit for bit.

    :param tensors: tensors to overwrite, P elements in all
    :param vector: the new values, shape (P,)
    """
    with th.no_grad():
        for tensor, part in zip(tensors, unflatten_like(tensors, vector), strict=True):
            tensor.copy_(part)


def unflatten_like(tensors: Sequence[th.Tensor], vector: th.Tensor) -> list[th.Tensor]:
    """
    View a flat vector as tensors.

    :param tensors: tensors that give the shapes, P elements in all
    :param vector: shape (P,)
    :return: views of the vector, shaped like ``tensors``
    """
    parts = th.split(vector, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]


def dot(a: th.Tensor, b: th.Tensor) -> float:
    """
    Compute the inner product, accumulated in float64 for any dtype and device.

    :param a: shape (P,)
    :param b: shape (P,)
    :return: aᵀb
    """
    if a.device.type == "mps":  # MPS has no float64
        a, b = a.cpu(), b.cpu()
    return th.dot(a.double(), b.double()).item()

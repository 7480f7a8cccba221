"""The advantages that the surrogate uses: standardised, and zero where they carry no signal."""

import torch as th

_NOISE_FACTOR = 8.0
"""Roundings that a spread must exceed to count: the GAE recursion adds up a few of them."""


def carry_signal(advantages: th.Tensor, returns: th.Tensor) -> bool:
    """
    Tell advantages that differ from advantages that are equal but for rounding.

    A step on the latter has full length, whatever their size, and a random direction. The noise is that of float32
    arithmetic on numbers as large as the returns and the values. A single advantage has no spread: its size is
    compared instead.

    :param advantages: shape (B,)
    :param returns: advantages plus values, shape (B,)
    :return: False if all advantages are equal but for rounding
    """
    largest = max(returns.abs().max().item(), (returns - advantages).abs().max().item(), advantages.abs().max().item())
    noise = _NOISE_FACTOR * th.finfo(th.float32).eps * largest
    spread = advantages.double().std().item() if len(advantages) > 1 else advantages.abs().item()
    return spread > noise


def effective_advantages(advantages: th.Tensor, returns: th.Tensor, normalize: bool) -> th.Tensor:
    """
    The advantages that the surrogate uses: zero where there is no signal, standardised if asked for.

    :param advantages: shape (B,)
    :param returns: advantages plus values, shape (B,)
    :param normalize: whether to shift and scale to mean 0 and standard deviation 1
    :return: shape (B,)
    """
    if not carry_signal(advantages, returns):
        return th.zeros_like(advantages)
    if not normalize:
        return advantages
    return (advantages - advantages.mean()) / advantages.std()

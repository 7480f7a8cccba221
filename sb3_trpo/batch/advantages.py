"""Generalized advantage estimates, and what the surrogate makes of them: standardised, zero without a signal."""

import numpy as np
import torch as th

_NOISE_FACTOR = 8.0
"""Roundings that a spread must exceed to count: the GAE recursion adds up a few of them."""


def carry_signal(advantages: th.Tensor, returns: th.Tensor) -> bool:
    """
    Tell advantages that differ from advantages that are equal but for rounding.

    A step on the latter has full length, whatever their size, and a random direction. The noise is that of float32
    arithmetic on numbers as large as the returns and the values. A single advantage has no spread: its size is
    compared instead.

    :param advantages: shape (B,), or (N, K) with K branches of N states
    :param returns: advantages plus values, of the same shape
    :return: False if all advantages are equal but for rounding
    """
    largest = max(returns.abs().max().item(), (returns - advantages).abs().max().item(), advantages.abs().max().item())
    noise = _NOISE_FACTOR * th.finfo(th.float32).eps * largest
    spread = advantages.cpu().double().std().item() if advantages.numel() > 1 else advantages.abs().item()
    return spread > noise


def effective_advantages(advantages: th.Tensor, returns: th.Tensor, normalize: bool) -> th.Tensor:
    """
    The advantages that the surrogate uses: zero where there is no signal, standardised if asked for.

    :param advantages: shape (B,), or (N, K) with K branches of N states
    :param returns: advantages plus values, of the same shape
    :param normalize: whether to shift and scale to mean 0 and standard deviation 1
    :return: of the same shape
    """
    if not carry_signal(advantages, returns):
        return th.zeros_like(advantages)
    if not normalize:
        return advantages
    return (advantages - advantages.mean()) / advantages.std()


def generalized_advantages(deltas: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """
    A_t = δ_t + c_t A_{t+1}, from the last step to the first.

    Source: equation 16 of https://arxiv.org/abs/1506.02438, with c_t = γλ inside an episode and 0 at its end. SB3 computes
    the same in a loop of NumPy calls, which take longer than the sums: here the loop is over Python floats.

    :param deltas: temporal difference errors δ, shape (n_steps, n_envs)
    :param decays: c, shape (n_steps, n_envs)
    :return: A, shape (n_steps, n_envs), float32
    """
    columns = []
    for delta, decay in zip(deltas.T.tolist(), decays.T.tolist(), strict=True):
        advantage = 0.0
        column = [0.0] * len(delta)
        for step in range(len(delta) - 1, -1, -1):
            column[step] = advantage = delta[step] + decay[step] * advantage
        columns.append(column)
    return np.array(columns, dtype=np.float32).T

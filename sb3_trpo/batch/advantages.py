"""Generalized advantage estimates, and the advantages that the surrogate uses: standardised, and zero without a signal."""

import math

import numpy as np
import torch as th

from sb3_trpo.step.workers import ALONE, Workers

_MANY_ENVS = 12
"""Number of environments from which a NumPy operation per step is faster than Python floats."""
_NOISE_FACTOR = 8.0
"""Number of rounding errors that a spread must exceed to count: the GAE recursion adds up a few."""


def carry_signal(
    advantages: th.Tensor, returns: th.Tensor, weights: th.Tensor | None = None, workers: Workers = ALONE
) -> bool:
    """
    Tell whether advantages differ by more than rounding.

    If they do not, a step would have a random direction and full length, however small they are. The rounding error is
    taken for float32 numbers as large as the returns and the values. A single advantage has no spread, so its size is
    compared instead.

    :param advantages: shape (B,), or (N, K) with K branches of N states
    :param returns: advantages plus values, of the same shape
    :param weights: weight of each advantage, at least 0, of the same shape; None: 1 each
    :param workers: the processes whose advantages are pooled
    :return: False if all advantages are equal up to rounding
    """
    if weights is not None:
        advantages, returns = advantages[weights > 0.0], returns[weights > 0.0]
        weights = weights[weights > 0.0]
    sizes = [part.abs().max().item() for part in (returns, returns - advantages, advantages) if part.numel()]
    noise = _NOISE_FACTOR * th.finfo(th.float32).eps * workers.largest(max(sizes, default=0.0))
    mean, std = weighted_moments(advantages, weights, workers)
    spread = abs(mean) if math.isnan(std) else std
    return spread > noise


def effective_advantages(
    advantages: th.Tensor,
    returns: th.Tensor,
    normalize: bool,
    weights: th.Tensor | None = None,
    workers: Workers = ALONE,
) -> th.Tensor:
    """
    Compute the advantages that the surrogate uses: zero without a signal, otherwise standardised if ``normalize``.

    :param advantages: shape (B,), or (N, K) with K branches of N states
    :param returns: advantages plus values, of the same shape
    :param normalize: whether to shift and scale to mean 0 and standard deviation 1
    :param weights: how often each counts, at least 0, of the same shape; None: once each
    :param workers: the processes whose advantages are pooled
    :return: advantages of the same shape
    """
    if not carry_signal(advantages, returns, weights, workers):
        return th.zeros_like(advantages)
    if not normalize:
        return advantages
    if weights is None and workers.size == 1:
        return (advantages - advantages.mean()) / advantages.std()
    mean, std = weighted_moments(advantages, weights, workers)
    # a total weight of at most 1 has no spread
    return (advantages - mean) / std if std > 0.0 else th.zeros_like(advantages)


def weighted_moments(values: th.Tensor, weights: th.Tensor | None, workers: Workers) -> tuple[float, float]:
    """
    Compute mean and standard deviation in float64.

    :param values: any shape
    :param weights: how often each counts, at least 0, of the same shape; None: once each
    :param workers: the processes whose values are pooled
    :return: mean and standard deviation; the latter is NaN for a total weight of at most 1
    """
    values = values.cpu().double()
    weights = th.ones_like(values) if weights is None else weights.cpu().double()
    total, weighted = workers.sum(th.stack([weights.sum(), (weights * values).sum()])).tolist()
    if total <= 0.0:
        return 0.0, math.nan
    mean = weighted / total
    squares = workers.sum((weights * (values - mean).square()).sum()).item()
    return mean, math.sqrt(squares / (total - 1.0)) if total > 1.0 else math.nan


def generalized_advantages(deltas: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """
    Compute A_t = δ_t + c_t A_{t+1}, from the last step to the first.

    Source: equation 16 of https://arxiv.org/abs/1506.02438, with c_t = γλ inside an episode and 0 at its end. SB3 computes
    the same in a loop of NumPy calls, whose overhead exceeds the arithmetic for few environments; then this loop is over
    Python floats. Both sum in float64.

    :param deltas: temporal difference errors δ, shape (n_steps, n_envs)
    :param decays: c, shape (n_steps, n_envs)
    :return: A, shape (n_steps, n_envs), float32
    """
    if deltas.shape[1] >= _MANY_ENVS:
        return _by_rows(deltas, decays)
    columns = []
    for delta, decay in zip(deltas.T.tolist(), decays.T.tolist(), strict=True):
        advantage = 0.0
        column = [0.0] * len(delta)
        for step in range(len(delta) - 1, -1, -1):
            column[step] = advantage = delta[step] + decay[step] * advantage
        columns.append(column)
    return np.array(columns, dtype=np.float32).T


def _by_rows(deltas: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """Compute the same with NumPy, all environments of a step at once."""
    advantages = np.empty(deltas.shape, dtype=np.float32)
    advantage = np.zeros(deltas.shape[1])
    for step in range(len(deltas) - 1, -1, -1):
        advantage = deltas[step] + decays[step] * advantage
        advantages[step] = advantage
    return advantages

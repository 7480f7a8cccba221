"""Scales the bound on the KL with what the critic knows: advantages that are its errors are worth a short step only."""

import torch as th

from sb3_trpo.batch.advantages import weighted_moments
from sb3_trpo.step.workers import ALONE, Workers

_LEAST_SCALE = 1e-3
"""Smallest scale: with a smaller bound, rounding would decide the line search."""


def bound_scale(
    advantages: th.Tensor, returns: th.Tensor, weights: th.Tensor | None = None, workers: Workers = ALONE
) -> float:
    """
    Compare how much advantages and returns vary.

    An advantage is a return minus the critic's value. If the advantages vary more than the returns, the critic predicts them
    worse than a constant would, as in a task that is solved: its returns are almost equal, and the advantages are the critic's
    errors. Standardised, these have the size of any others, and a step of full length would follow them.

    :param advantages: shape (B,)
    :param returns: advantages plus values, of the same shape
    :param weights: how often each counts, at least 0, of the same shape; None: once each
    :param workers: the processes whose rollouts are pooled
    :return: factor of the bound, from 0.001 to 1: (Var returns / Var advantages)², which is (1 - explained variance)⁻², if it
        is less than 1
    """
    _, of_returns = weighted_moments(returns, weights, workers)
    _, of_advantages = weighted_moments(advantages, weights, workers)
    if not of_advantages > of_returns:  # also without a spread, NaN or 0
        return 1.0
    return max(_LEAST_SCALE, (of_returns / of_advantages) ** 4)

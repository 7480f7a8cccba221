"""Scales the bound on the KL with the advantages' size: where little is at stake, the policy takes a short step."""

import torch as th

from sb3_trpo.update.moments import RunningMoments

_LATEST_SHARE = 0.1
"""Smallest weight of the last rollout in the running mean: advantages change their size as the policy learns."""

_LEAST_SCALE = 1e-3
"""Smallest scale: with a smaller bound, rounding would decide the line search."""


def bound_scale(moments: RunningMoments, mean_square: float) -> float:
    """
    Merge the size of a rollout's advantages, and compare it with the running mean.

    Standardised advantages have the same size in every rollout, whether it contains a failure or nothing but the critic's
    errors, and a step of full length follows either. With this scale the natural gradient's step is proportional to the
    advantages, in a unit that changes slowly, up to the length that ``target_kl`` allows.

    Source: ACKTR's step, the smaller of a fixed step size and the one that fills the trust region
    (https://arxiv.org/abs/1708.05144), here with advantages in units of their running deviation.

    :param moments: running mean of the mean squares, which is updated
    :param mean_square: of the rollout's advantages, at least 0
    :return: factor of the bound, from 0.001 to 1; 1 for advantages at least as large as usual
    """
    moments.update(th.tensor([mean_square], dtype=th.float64), _LATEST_SHARE)
    usual = moments.mean.item()
    return min(1.0, max(_LEAST_SCALE, mean_square / usual)) if usual > 0.0 else 1.0

"""Gaussians: closed-form KL and metric."""

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.distributions.differences import expm1_minus
from sb3_trpo.distributions.family import DistributionFamily, Metric, Parameters


class Gaussian(DistributionFamily):
    """
    Independent Gaussians with parameters (mean, std), each of shape (B, d).

    Also used for gSDE and for both squashed forms, because the bijection tanh does not change the KL.
    """

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        normal = distribution.distribution
        assert isinstance(normal, th.distributions.Normal)
        return normal.loc, normal.scale

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        (mean_old, std_old), (mean_new, std_new) = old, new
        log_ratio = std_old.log() - std_new.log()
        spread = 0.5 * expm1_minus(2.0 * log_ratio)
        shift = 0.5 * ((mean_old - mean_new) / std_new).square()
        return (spread + shift).sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        precision = at[1].square().reciprocal()
        return lambda tangent: (precision * tangent[0], 2.0 * precision * tangent[1])

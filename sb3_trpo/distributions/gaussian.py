"""Gaussians: closed-form KL and metric."""

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.distributions.family import DistributionFamily, Metric, Parameters


class Gaussian(DistributionFamily):
    """
    Independent Gaussians with parameters (mean, std), each of shape (B, d).

    Serves gSDE too, and both squashed forms: KL does not change under the bijection tanh.
    """

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        normal = distribution.distribution
        assert isinstance(normal, th.distributions.Normal)
        return normal.loc, normal.scale

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        (mean_old, std_old), (mean_new, std_new) = old, new
        log_ratio = std_old.log() - std_new.log()
        # expm1 keeps the digits that 1/2 (ratio² - 1) would lose near ratio = 1
        spread = 0.5 * th.expm1(2.0 * log_ratio) - log_ratio
        shift = 0.5 * ((mean_old - mean_new) / std_new).square()
        return (spread + shift).sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        precision = at[1].square().reciprocal()
        return lambda tangent: (precision * tangent[0], 2.0 * precision * tangent[1])

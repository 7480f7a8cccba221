"""Any distribution without a closed form: KL and metric estimated from the actions taken."""

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.distributions.differences import expm1_minus
from sb3_trpo.distributions.family import DistributionFamily, Metric, Parameters


class SampleEstimate(DistributionFamily):
    """
    Any other distribution; the parameter is the log-probability of the action taken, shape (B,).

    The batch's actions give the estimate r - 1 - log r of KL(old‖new), with r = π_new/π_old. It is unbiased and never
    negative (http://joschu.net/blog/kl-approx.html). Its Hessian is the empirical Fisher matrix, the mean of
    ∇log π ∇log πᵀ. The trust region then holds for the estimate.
    """

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        return (distribution.log_prob(actions),)

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        return expm1_minus(new[0] - old[0])

    def metric(self, at: Parameters) -> Metric:
        return lambda tangent: tangent

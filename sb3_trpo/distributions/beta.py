"""Beta distributions of actions between two bounds: closed-form KL and metric."""

import math

import torch as th
from stable_baselines3.common.distributions import Distribution
from torch import nn
from torch.nn.functional import softplus

from sb3_trpo.distributions.differences import in_float64
from sb3_trpo.distributions.family import DistributionFamily, Metric, Parameters

_EDGE = 1e-6
"""Distance to the bounds, as a share of the range, within which an action counts as this far: the density there may be 0."""


class BetaDistribution(Distribution):
    """
    Independent Beta distributions over [-1, 1], one for each action dimension.

    The network has two outputs u and v for each dimension: α = 1 + softplus(u) and β = 1 + softplus(v), so that the density
    has one peak and is 0 at both bounds.

    Source: Chou, Maturana and Scherer 2017, "Improving Stochastic Policy Gradients in Continuous Control with Deep
    Reinforcement Learning using the Beta Distribution" (https://proceedings.mlr.press/v70/chou17a.html).

    :param action_dim: number of action dimensions
    """

    distribution: th.distributions.Beta

    def __init__(self, action_dim: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.action_dim = action_dim

    def proba_distribution_net(self, latent_dim: int) -> nn.Module:
        """
        Make the last layer of the actor.

        :param latent_dim: number of features that it reads
        :return: a layer with the outputs u of all dimensions, then v of all dimensions
        """
        return nn.Linear(latent_dim, 2 * self.action_dim)

    def proba_distribution(self, outputs: th.Tensor) -> "BetaDistribution":
        """
        Set the parameters.

        :param outputs: u and v, shape (B, 2d)
        :return: itself
        """
        self.u, self.v = th.split(outputs, self.action_dim, dim=1)
        self.distribution = th.distributions.Beta(1.0 + softplus(self.u), 1.0 + softplus(self.v))
        return self

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        """
        Compute the logarithm of the density of actions, summed over their dimensions.

        :param actions: shape (B, d), in [-1, 1]
        :return: shape (B,), nats
        """
        shares = (0.5 * (actions + 1.0)).clamp(_EDGE, 1.0 - _EDGE)
        log_probs: th.Tensor = self.distribution.log_prob(shares)  # type: ignore[no-untyped-call]
        return log_probs.sum(dim=1) - self.action_dim * math.log(2.0)

    def entropy(self) -> th.Tensor:
        """
        Compute the differential entropy, summed over the action dimensions.

        :return: shape (B,), nats
        """
        entropy: th.Tensor = self.distribution.entropy()  # type: ignore[no-untyped-call]
        return entropy.sum(dim=1) + self.action_dim * math.log(2.0)

    def sample(self) -> th.Tensor:
        """
        Draw actions.

        :return: shape (B, d), in [-1, 1]
        """
        drawn: th.Tensor = self.distribution.rsample()
        return 2.0 * drawn - 1.0

    def mode(self) -> th.Tensor:
        """
        Compute the actions with the largest density.

        :return: shape (B, d), in [-1, 1]
        """
        below, above = softplus(self.u), softplus(self.v)  # α - 1 and β - 1
        return (below - above) / (below + above)

    def actions_from_params(self, outputs: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        Draw actions of the distribution with these parameters.

        :param outputs: u and v, shape (B, 2d)
        :param deterministic: whether to take the mode
        :return: shape (B, d)
        """
        return self.proba_distribution(outputs).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, outputs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Draw actions of the distribution with these parameters, and compute their log-probabilities.

        :param outputs: u and v, shape (B, 2d)
        :return: actions, shape (B, d), and log-probabilities, shape (B,), nats
        """
        actions = self.actions_from_params(outputs)
        return actions, self.log_prob(actions)


class Beta(DistributionFamily):
    """Independent Beta distributions; the parameters are u and v of :class:`BetaDistribution`, each of shape (B, d)."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        assert isinstance(distribution, BetaDistribution)
        return distribution.u, distribution.v

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        dtype = old[0].dtype
        (a, b), (a_new, b_new) = (tuple(1.0 + softplus(part) for part in in_float64(side)) for side in (old, new))
        of_total = th.digamma(a + b)
        kl = _log_beta(a_new, b_new) - _log_beta(a, b)
        kl = kl + (a - a_new) * (th.digamma(a) - of_total) + (b - b_new) * (th.digamma(b) - of_total)
        return kl.sum(dim=1).to(dtype)

    def metric(self, at: Parameters) -> Metric:
        # the Fisher information of (α, β) is made of trigammas; α and β change with u and v by the slopes of softplus
        a, b = (1.0 + softplus(part) for part in at)
        of_total = th.polygamma(1, a + b)
        by_a, by_b = th.polygamma(1, a) - of_total, th.polygamma(1, b) - of_total
        slope_u, slope_v = (part.sigmoid() for part in at)

        def product(tangent: Parameters) -> Parameters:
            moved_a, moved_b = slope_u * tangent[0], slope_v * tangent[1]
            return slope_u * (by_a * moved_a - of_total * moved_b), slope_v * (by_b * moved_b - of_total * moved_a)

        return product


def _log_beta(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    """Compute the logarithm of the Beta function."""
    return th.lgamma(a) + th.lgamma(b) - th.lgamma(a + b)

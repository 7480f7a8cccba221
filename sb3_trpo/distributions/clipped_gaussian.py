"""The Gaussian as the environment sees it: SB3 clips every action to the bounds of the action space."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.special import log_ndtr


class ClippedGaussianDistribution(DiagGaussianDistribution):
    """
    SB3's Gaussian, where all actions beyond a bound are one action: the bound.

    Actions are drawn as before and clipped by SB3 on their way to the environment, so the policy acts as it did. But an
    action beyond a bound has the probability that the Gaussian has there in all, and the gradient no longer depends on
    how far beyond it was, which is noise to the environment. The entropy is that of the Gaussian before clipping.

    Source: Fujita and Maeda 2018, "Clipped Action Policy Gradient" (https://arxiv.org/abs/1802.07564).

    :param low: least value of each action dimension, shape (d,)
    :param high: largest value of each action dimension, shape (d,)
    """

    def __init__(self, low: th.Tensor, high: th.Tensor) -> None:
        super().__init__(len(low))
        self.low = low
        self.high = high

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        """
        :param actions: shape (B, d), clipped or not
        :return: log-density of what lies within the bounds, log-probability of what lies beyond, shape (B,), nats
        """
        mean, std = self.distribution.mean, self.distribution.stddev
        low, high = self.low.to(mean.device), self.high.to(mean.device)
        below = actions <= low
        beyond = log_ndtr(th.where(below, low - mean, mean - high) / std)
        inside: th.Tensor = self.distribution.log_prob(actions)  # type: ignore[no-untyped-call]
        return th.where(below | (actions >= high), beyond, inside).sum(dim=1)


_NO_BOUND = 1e9
"""A bound that no action reaches, and whose square is far from the end of float32."""

GAUSSIANS = (DiagGaussianDistribution, ClippedGaussianDistribution)
"""Distributions whose mean is the network's output, with one standard deviation an action dimension."""


def clip_gaussian(policy: ActorCriticPolicy) -> None:
    """
    Give a policy the Gaussian of the clipped actions.

    :param policy: a policy with SB3's Gaussian
    :raises ValueError: if its actions are drawn from another distribution
    """
    space, distribution = policy.action_space, policy.action_dist
    if type(distribution) is not DiagGaussianDistribution:
        raise ValueError(
            "`clipped_gaussian=True` needs SB3's Gaussian, which is that of a Box in `action_space` without `use_sde`; the "
            f"policy has a {type(distribution).__name__} for {space}"
        )
    for name in ("get_distribution", "_get_action_dist_from_latent"):
        if getattr(type(policy), name) is not getattr(ActorCriticPolicy, name):
            raise ValueError(f"`clipped_gaussian=True` needs SB3's own `{name}`, which {type(policy).__name__} overrides")
    assert isinstance(space, spaces.Box)
    bounds = (np.clip(bound.flatten(), -_NO_BOUND, _NO_BOUND) for bound in (space.low, space.high))
    low, high = (th.as_tensor(bound, dtype=th.float32, device=policy.device) for bound in bounds)
    policy.action_dist = ClippedGaussianDistribution(low, high)


def check_clipping(policy: ActorCriticPolicy, clipped: bool) -> None:
    """
    Check that a policy still has the Gaussian with which it was made.

    :param policy: the policy
    :param clipped: whether the model says that it is clipped
    :raises ValueError: if it is not as the model says
    """
    if clipped != (type(policy.action_dist) is ClippedGaussianDistribution):
        raise ValueError(
            f"`clipped_gaussian` was set to {clipped!r} after the policy was made; save the model and load it with "
            f"`clipped_gaussian={clipped!r}`"
        )

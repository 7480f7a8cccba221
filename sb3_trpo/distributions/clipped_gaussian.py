"""The Gaussian as the environment sees it: SB3 clips every action to the bounds of the action space."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.special import log_ndtr, ndtr

from sb3_trpo.distributions.differences import in_float64
from sb3_trpo.distributions.family import Metric, Parameters
from sb3_trpo.distributions.gaussian import Gaussian


class ClippedGaussianDistribution(DiagGaussianDistribution):
    """
    SB3's Gaussian, in which all actions beyond a bound count as one action: the bound.

    SB3 still draws actions from the Gaussian and clips them for the environment, so the policy acts as before. But an action
    beyond a bound has the probability of the Gaussian's whole tail there. So the gradient does not depend on how far beyond
    the bound it was, which has no effect on the environment. The entropy is that of the Gaussian before clipping.

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
        Compute the log-probability of actions, summed over their dimensions.

        :param actions: shape (B, d), clipped or not
        :return: log-density inside the bounds plus log-probability of the tails beyond them, shape (B,), nats
        """
        mean, std = self.distribution.mean, self.distribution.stddev
        low, high = self.low.to(mean.device), self.high.to(mean.device)
        below = actions <= low
        beyond = log_ndtr(th.where(below, low - mean, mean - high) / std)
        inside: th.Tensor = self.distribution.log_prob(actions)  # type: ignore[no-untyped-call]
        return th.where(below | (actions >= high), beyond, inside).sum(dim=1)


_TWO_PI = 2.0 * math.pi


class _TruncatedMoments(NamedTuple):
    """
    Moments of a standard normal between two bounds; every part has shape (B, d).

    :param a: the lower bound
    :param b: the upper bound
    :param density_a: φ(a)
    :param density_b: φ(b)
    :param mass: ∫ φ
    :param first: ∫ z φ
    :param second: ∫ z² φ
    """

    a: th.Tensor
    b: th.Tensor
    density_a: th.Tensor
    density_b: th.Tensor
    mass: th.Tensor
    first: th.Tensor
    second: th.Tensor


class ClippedGaussian(Gaussian):
    """
    Gaussians whose values beyond a bound count as the bound: a density inside, and a probability at either end.

    Their KL never exceeds the KL of the Gaussians without bounds. There is no curvature where nearly every action is beyond
    the same bound.

    :param low: lower bounds, shape (d,)
    :param high: upper bounds, shape (d,)
    """

    def __init__(self, low: th.Tensor, high: th.Tensor) -> None:
        self._low = low
        self._high = high

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        dtype = old[0].dtype
        old, new = in_float64(old), in_float64(new)  # the parts inside and beyond the bounds cancel
        (mean_old, std_old), (mean_new, std_new) = old, new
        a, b, _, _, mass, first, second = self._moments(old)
        log_ratio, shift = std_old.log() - std_new.log(), (mean_old - mean_new) / std_new
        # E[log p_old - log p_new] within the bounds, by the moments of the old z-score
        within = mass * (0.5 * shift.square() - log_ratio)
        within = within + log_ratio.exp() * shift * first + 0.5 * th.expm1(2.0 * log_ratio) * second
        below, above = log_ndtr(a), log_ndtr(-b)
        low, high = self._low.to(mean_new.device), self._high.to(mean_new.device)
        ends = below.exp() * (below - log_ndtr((low - mean_new) / std_new))
        ends = ends + above.exp() * (above - log_ndtr((mean_new - high) / std_new))
        kl: th.Tensor = within + ends
        return kl.sum(dim=1).to(dtype)

    def metric(self, at: Parameters) -> Metric:
        # times σ, the scores of mean and std are z and z² - 1 inside, and the derivatives of log Φ at the ends
        a, b, density_a, density_b, mass, first, second = self._moments(at)
        third = 2.0 * first + a.square() * density_a - b.square() * density_b
        fourth = 3.0 * second + a**3 * density_a - b**3 * density_b
        below = th.exp(-a.square() - log_ndtr(a)) / _TWO_PI  # φ(a)² / Φ(a)
        above = th.exp(-b.square() - log_ndtr(-b)) / _TWO_PI
        variance = at[1].square()
        by_mean = (second + below + above) / variance
        mixed = (third - first + a * below + b * above) / variance
        by_std = (fourth - 2.0 * second + mass + a.square() * below + b.square() * above) / variance
        return lambda t: (by_mean * t[0] + mixed * t[1], mixed * t[0] + by_std * t[1])

    def _moments(self, at: Parameters) -> _TruncatedMoments:
        mean, std = at
        # beyond 1,000 standard deviations every part is 0 or 1 already, and powers of the bounds would overflow
        a, b = (((bound.to(mean.device) - mean) / std).clamp(-1e3, 1e3) for bound in (self._low, self._high))
        density_a, density_b = (th.exp(-0.5 * z.square()) / math.sqrt(_TWO_PI) for z in (a, b))
        mass = ndtr(b) - ndtr(a)
        return _TruncatedMoments(a, b, density_a, density_b, mass, density_a - density_b, mass + a * density_a - b * density_b)


_NO_BOUND = 1e9
"""A bound that no action reaches, and whose square does not overflow float32."""

GAUSSIANS = (DiagGaussianDistribution, ClippedGaussianDistribution)
"""Distributions whose mean is the network's output, with one standard deviation per action dimension."""


def clip_gaussian(
    policy: ActorCriticPolicy, methods: Sequence[str] = ("get_distribution", "_get_action_dist_from_latent")
) -> None:
    """
    Replace a policy's Gaussian by the Gaussian of the clipped actions.

    :param policy: a policy with SB3's Gaussian
    :param methods: the methods that make the distribution
    :raises ValueError: if its actions are drawn from another distribution
    """
    space, distribution = policy.action_space, policy.action_dist
    if type(distribution) is not DiagGaussianDistribution:
        raise ValueError(
            "`clipped_gaussian=True` needs SB3's Gaussian, which SB3 uses for a Box in `action_space` without `use_sde`; the "
            f"policy has a {type(distribution).__name__} for {space}"
        )
    for name in methods:
        if getattr(type(policy), name) is not getattr(ActorCriticPolicy, name):
            raise ValueError(f"`clipped_gaussian=True` needs SB3's `{name}`, which {type(policy).__name__} overrides")
    assert isinstance(space, spaces.Box)
    bounds = (np.clip(bound.flatten(), -_NO_BOUND, _NO_BOUND) for bound in (space.low, space.high))
    low, high = (th.as_tensor(bound, dtype=th.float32, device=policy.device) for bound in bounds)
    policy.action_dist = ClippedGaussianDistribution(low, high)


def check_clipping(policy: ActorCriticPolicy, clipped: bool) -> None:
    """
    Check that a policy still has the Gaussian with which it was made.

    :param policy: the policy
    :param clipped: whether it should be clipped, according to the model
    :raises ValueError: if the policy and the model disagree
    """
    if clipped != (type(policy.action_dist) is ClippedGaussianDistribution):
        raise ValueError(
            f"`clipped_gaussian` was set to {clipped!r} after the policy was made; save the model and load it with "
            f"`clipped_gaussian={clipped!r}`"
        )

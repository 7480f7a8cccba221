"""
Families of action distributions: their parameters, KL(old‖new) and Fisher metric, one class a family.

Shapes: B states, d action dimensions, n choices of one discrete action. KL is in nats, one value a state, summed over the
action dimensions (the dimensions are independent, so the KL of the joint action is the sum).
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    SquashedDiagGaussianDistribution,
    StateDependentNoiseDistribution,
)
from torch.special import log_ndtr, ndtr

from sb3_trpo.distributions.clipped_gaussian import ClippedGaussianDistribution

Parameters: TypeAlias = tuple[th.Tensor, ...]
"""Parameters of the distribution at B states: tensors of shape (B, ...)."""

Metric: TypeAlias = Callable[[Parameters], Parameters]
"""A tangent t -> M t, both shaped like the parameters."""


class DistributionFamily(ABC):
    """What the trust region needs to know of a distribution: its parameters φ(θ), KL(old‖new) and the metric M(φ)."""

    @abstractmethod
    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        """
        Read the parameters off a distribution, with their graph.

        SB3 policies return the same distribution object from every call: read it before the next one.

        :param distribution: the distribution at B states
        :param actions: the actions taken there, shape (B,) or (B, d); only the sample estimate uses them
        :return: the parameters, each of shape (B, ...)
        """

    @abstractmethod
    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        """
        KL(old‖new), the direction of the TRPO paper (https://arxiv.org/abs/1502.05477, equation 12).

        :param old: parameters before the step
        :param new: parameters after it
        :return: shape (B,), in nats
        """

    @abstractmethod
    def metric(self, at: Parameters) -> Metric:
        """
        t -> M(φ) t: products of the Fisher information of the distribution's own parameters with tangents shaped like them.

        M is the Hessian, at ``new = old``, of :meth:`kl_old_new` in the free parameters; with J the Jacobian of φ(θ),
        the Fisher matrix of the network is Jᵀ M J (appendix C of the paper).

        :param at: the parameters φ
        :return: the product
        """


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


_TWO_PI = 2.0 * math.pi


class _Within(NamedTuple):
    """
    A standard normal between two bounds; every part has shape (B, d).

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
    Gaussians whose values beyond a bound are the bound: a density within, a probability at either end.

    Never more KL than between the Gaussians themselves, and no curvature where nearly every action is beyond the same bound.

    :param low: lower bounds, shape (d,)
    :param high: upper bounds, shape (d,)
    """

    def __init__(self, low: th.Tensor, high: th.Tensor) -> None:
        self._low = low
        self._high = high

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        (mean_old, std_old), (mean_new, std_new) = old, new
        a, b, _, _, mass, first, second = self._within(old)
        log_ratio, shift = std_old.log() - std_new.log(), (mean_old - mean_new) / std_new
        # E[log p_old - log p_new] within the bounds, by the moments of the old z-score
        within = mass * (0.5 * shift.square() - log_ratio)
        within = within + log_ratio.exp() * shift * first + 0.5 * th.expm1(2.0 * log_ratio) * second
        below, above = log_ndtr(a), log_ndtr(-b)
        low, high = self._low.to(mean_new.device), self._high.to(mean_new.device)
        ends = below.exp() * (below - log_ndtr((low - mean_new) / std_new))
        ends = ends + above.exp() * (above - log_ndtr((mean_new - high) / std_new))
        kl: th.Tensor = within + ends
        return kl.sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        # the scores of mean and std, times σ, are z and z² - 1 within, and those of log Φ at the ends
        a, b, density_a, density_b, mass, first, second = self._within(at)
        third = 2.0 * first + a.square() * density_a - b.square() * density_b
        fourth = 3.0 * second + a**3 * density_a - b**3 * density_b
        below = th.exp(-a.square() - log_ndtr(a)) / _TWO_PI  # φ(a)² / Φ(a)
        above = th.exp(-b.square() - log_ndtr(-b)) / _TWO_PI
        variance = at[1].square()
        by_mean = (second + below + above) / variance
        mixed = (third - first + a * below + b * above) / variance
        by_std = (fourth - 2.0 * second + mass + a.square() * below + b.square() * above) / variance
        return lambda t: (by_mean * t[0] + mixed * t[1], mixed * t[0] + by_std * t[1])

    def _within(self, at: Parameters) -> _Within:
        mean, std = at
        # beyond 1,000 standard deviations every part is 0 or 1 already, and powers of the bounds would overflow
        a, b = (((bound.to(mean.device) - mean) / std).clamp(-1e3, 1e3) for bound in (self._low, self._high))
        density_a, density_b = (th.exp(-0.5 * z.square()) / math.sqrt(_TWO_PI) for z in (a, b))
        mass = ndtr(b) - ndtr(a)
        return _Within(a, b, density_a, density_b, mass, density_a - density_b, mass + a * density_a - b * density_b)


class Categorical(DistributionFamily):
    """One or several independent discrete actions; parameters are the normalised logits of each, shape (B, n)."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        parts: Any = distribution.distribution
        # torch's own normalisation loses digits where logits are large, and a negative KL would follow
        return tuple(th.log_softmax(part.logits, dim=1) for part in (parts if isinstance(parts, list) else [parts]))

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        return th.stack([self._kl(o, n) for o, n in zip(old, new, strict=True)]).sum(dim=0)

    @staticmethod
    def _kl(old: th.Tensor, new: th.Tensor) -> th.Tensor:
        # a masked action has probability 0 and logit -inf: it adds nothing
        return th.where(old == -th.inf, 0.0, old.exp() * (old - new)).sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        probabilities = [logits.exp() for logits in at]
        return lambda tangent: tuple(self._one(p, t) for p, t in zip(probabilities, tangent, strict=True))

    @staticmethod
    def _one(probability: th.Tensor, tangent: th.Tensor) -> th.Tensor:
        return probability * (tangent - (probability * tangent).sum(dim=1, keepdim=True))


class Bernoulli(DistributionFamily):
    """Independent binary actions; the parameter is their logits, shape (B, d)."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        bernoulli = distribution.distribution
        assert isinstance(bernoulli, th.distributions.Bernoulli)
        return (bernoulli.logits,)

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        (o,), (n,) = old, new
        log_sigmoid = th.nn.functional.logsigmoid
        on = th.sigmoid(o) * (log_sigmoid(o) - log_sigmoid(n))
        off = th.sigmoid(-o) * (log_sigmoid(-o) - log_sigmoid(-n))
        return (on + off).sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        variance = th.sigmoid(at[0]) * th.sigmoid(-at[0])
        return lambda tangent: (variance * tangent[0],)


class SampleEstimate(DistributionFamily):
    """
    Any other distribution; the parameter is the log-probability of the action taken, shape (B,).

    The KL is estimated on the batch's own actions by r - 1 - log r, r = π_new/π_old: unbiased for KL(old‖new) and
    never negative (http://joschu.net/blog/kl-approx.html). Its Hessian gives the empirical Fisher matrix, the mean
    of ∇log π ∇log πᵀ. The trust region then holds for the estimate.
    """

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        return (distribution.log_prob(actions),)

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        log_ratio = new[0] - old[0]
        return th.expm1(log_ratio) - log_ratio

    def metric(self, at: Parameters) -> Metric:
        return lambda tangent: tangent


_CLOSED_FORMS: dict[type[Distribution], tuple[type, Callable[[Any], DistributionFamily]]] = {
    ClippedGaussianDistribution: (th.distributions.Normal, lambda clipped: ClippedGaussian(clipped.low, clipped.high)),
    DiagGaussianDistribution: (th.distributions.Normal, lambda _: Gaussian()),
    SquashedDiagGaussianDistribution: (th.distributions.Normal, lambda _: Gaussian()),
    StateDependentNoiseDistribution: (th.distributions.Normal, lambda _: Gaussian()),
    CategoricalDistribution: (th.distributions.Categorical, lambda _: Categorical()),
    MultiCategoricalDistribution: (list, lambda _: Categorical()),
    BernoulliDistribution: (th.distributions.Bernoulli, lambda _: Bernoulli()),
}
"""Known distributions: the torch distribution that each holds, and what makes its family."""


def distribution_family(distribution: Distribution) -> DistributionFamily:
    """
    The family of a distribution: closed form for SB3's own and ours, the sample estimate for any other.

    A subclass keeps the closed form of its parent unless it computes log-probabilities its own way or holds another
    torch distribution.

    :param distribution: a distribution as ``policy.get_distribution`` returns it
    :return: its family
    """
    for parent in type(distribution).__mro__:
        if parent in _CLOSED_FORMS:
            held, make_family = _CLOSED_FORMS[parent]
            own_log_prob = type(distribution).log_prob is not parent.log_prob
            if own_log_prob or type(distribution.distribution) is not held:
                return SampleEstimate()
            return make_family(distribution)
    return SampleEstimate()


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Let torch build distributions from non-finite parameters: the step rejects them itself."""
    _switch.off()
    try:
        yield
    finally:
        _switch.back()


class _Switch:
    """Torch's check of parameters, one for all threads: the first to come turns it off, the last to leave puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def off(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = th.distributions.Distribution._validate_args
                th.distributions.Distribution.set_default_validate_args(False)
            self._inside += 1

    def back(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                th.distributions.Distribution.set_default_validate_args(self._before)


_switch = _Switch()

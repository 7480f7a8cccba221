"""
Families of action distributions: their parameters, KL(old‖new) and Fisher metric, one class a family.

Shapes: B states, d action dimensions, n choices of one discrete action. KL is in nats, one value a state, summed over the
action dimensions (the dimensions are independent, so the KL of the joint action is the sum).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

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

Parameters: TypeAlias = tuple[th.Tensor, ...]
"""Parameters of the distribution at B states: tensors of shape (B, ...)."""


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
    def metric_product(self, at: Parameters, tangent: Parameters) -> Parameters:
        """
        M(φ) t: the Fisher information of the distribution's own parameters times a tangent.

        It is the Hessian, at ``new = old``, of :meth:`kl_old_new` in the free parameters; with J the Jacobian of φ(θ),
        the Fisher matrix of the network is Jᵀ M J (appendix C of the paper).

        :param at: the parameters φ
        :param tangent: t, shaped like ``at``
        :return: M t, shaped like ``at``
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

    def metric_product(self, at: Parameters, tangent: Parameters) -> Parameters:
        precision = at[1].square().reciprocal()
        return precision * tangent[0], 2.0 * precision * tangent[1]


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

    def metric_product(self, at: Parameters, tangent: Parameters) -> Parameters:
        return tuple(self._one(logits.exp(), t) for logits, t in zip(at, tangent, strict=True))

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

    def metric_product(self, at: Parameters, tangent: Parameters) -> Parameters:
        return (th.sigmoid(at[0]) * th.sigmoid(-at[0]) * tangent[0],)


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

    def metric_product(self, at: Parameters, tangent: Parameters) -> Parameters:
        return tangent


_CLOSED_FORMS: dict[type[Distribution], tuple[type, DistributionFamily]] = {
    DiagGaussianDistribution: (th.distributions.Normal, Gaussian()),
    SquashedDiagGaussianDistribution: (th.distributions.Normal, Gaussian()),
    StateDependentNoiseDistribution: (th.distributions.Normal, Gaussian()),
    CategoricalDistribution: (th.distributions.Categorical, Categorical()),
    MultiCategoricalDistribution: (list, Categorical()),
    BernoulliDistribution: (th.distributions.Bernoulli, Bernoulli()),
}
"""SB3's distributions: the torch distribution that each holds, and its family."""


def distribution_family(distribution: Distribution) -> DistributionFamily:
    """
    The family of a distribution: closed form for SB3's own, the sample estimate for any other.

    A subclass keeps the closed form of its parent unless it computes log-probabilities its own way or holds another
    torch distribution.

    :param distribution: a distribution as ``policy.get_distribution`` returns it
    :return: its family
    """
    for parent in type(distribution).__mro__:
        if parent in _CLOSED_FORMS:
            held, family = _CLOSED_FORMS[parent]
            own_log_prob = type(distribution).log_prob is not parent.log_prob
            return SampleEstimate() if own_log_prob or type(distribution.distribution) is not held else family
    return SampleEstimate()


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Let torch build distributions from non-finite parameters: the step rejects them itself."""
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        th.distributions.Distribution.set_default_validate_args(before)

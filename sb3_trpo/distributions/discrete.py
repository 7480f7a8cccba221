"""Discrete and binary actions: closed-form KL and metric."""

from typing import Any

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.distributions.differences import kl_terms
from sb3_trpo.distributions.family import DistributionFamily, Metric, Parameters
from sb3_trpo.distributions.masked import MaskedBernoulliDistribution, forbid


class Categorical(DistributionFamily):
    """One or several independent discrete actions; parameters are the normalised logits of each, shape (B, n)."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        parts: Any = distribution.distribution
        # torch's normalisation loses digits for large logits, which can make the KL negative
        return tuple(th.log_softmax(part.logits, dim=1) for part in (parts if isinstance(parts, list) else [parts]))

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        return th.stack([_sum_of_terms(o, n) for o, n in zip(old, new, strict=True)]).sum(dim=0)

    def metric(self, at: Parameters) -> Metric:
        probabilities = [logits.exp() for logits in at]
        allowed = [logits != -th.inf for logits in at]
        if all(bool(part.all()) for part in allowed):
            return lambda tangent: tuple(self._one(p, t) for p, t in zip(probabilities, tangent, strict=True))

        def product(tangent: Parameters) -> Parameters:
            # a forbidden value has no tangent: 0 times that of its logit might be NaN
            return tuple(
                self._one(p, th.where(mask, t, 0.0)) for p, mask, t in zip(probabilities, allowed, tangent, strict=True)
            )

        return product

    @staticmethod
    def _one(probability: th.Tensor, tangent: th.Tensor) -> th.Tensor:
        return probability * (tangent - (probability * tangent).sum(dim=1, keepdim=True))


def _sum_of_terms(old: th.Tensor, new: th.Tensor) -> th.Tensor:
    """Add up the terms of the KL in each state; where masks forbid most values, the others are picked out first."""
    possible = (old != -th.inf) | (new != -th.inf)
    if 2 * possible.count_nonzero() > possible.numel():
        return kl_terms(old, new).sum(dim=1)
    terms = kl_terms(old[possible], new[possible])
    return terms.new_zeros(len(old)).index_add(0, possible.nonzero()[:, 0], terms)


class Bernoulli(DistributionFamily):
    """Independent binary actions; the parameter is their logits, shape (B, d)."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        bernoulli = distribution.distribution
        assert isinstance(bernoulli, th.distributions.Bernoulli)
        return (bernoulli.logits,)

    def kl_old_new(self, old: Parameters, new: Parameters) -> th.Tensor:
        (o,), (n,) = old, new
        log_sigmoid = th.nn.functional.logsigmoid
        on = kl_terms(log_sigmoid(o), log_sigmoid(n))
        off = kl_terms(log_sigmoid(-o), log_sigmoid(-n))
        return (on + off).sum(dim=1)

    def metric(self, at: Parameters) -> Metric:
        variance = th.sigmoid(at[0]) * th.sigmoid(-at[0])
        return lambda tangent: (variance * tangent[0],)


class MaskedBernoulli(Bernoulli):
    """Independent binary actions, some of them forced, whose logits are infinite."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        assert isinstance(distribution, MaskedBernoulliDistribution)
        return (distribution.logits,)


class ContribCategorical(Categorical):
    """The discrete or binary actions of sb3-contrib's maskable distributions."""

    def parameters(self, distribution: Distribution, actions: th.Tensor) -> Parameters:
        held: Any = distribution
        parts = held.distributions if hasattr(held, "distributions") else [held.distribution]
        # sb3-contrib gives forbidden values a finite logit
        logits = [part.logits if part.masks is None else forbid(part.logits, part.masks) for part in parts]
        return tuple(th.log_softmax(part, dim=1) for part in logits)

"""The table of distribution families, to which users can add."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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

from sb3_trpo.checks import described
from sb3_trpo.distributions.beta import Beta, BetaDistribution
from sb3_trpo.distributions.clipped_gaussian import ClippedGaussian, ClippedGaussianDistribution
from sb3_trpo.distributions.discrete import Bernoulli, Categorical, ContribCategorical, MaskedBernoulli
from sb3_trpo.distributions.family import DistributionFamily
from sb3_trpo.distributions.gaussian import Gaussian
from sb3_trpo.distributions.masked import CONTRIB, MaskedBernoulliDistribution
from sb3_trpo.distributions.sample_estimate import SampleEstimate

D = TypeVar("D", bound=Distribution)


class _Entry(NamedTuple):
    """
    A known distribution.

    :param make_family: maps a distribution to its family
    :param holds: class of the torch distribution that it must hold; None: any
    """

    make_family: Callable[[Any], DistributionFamily]
    holds: type | None


_FAMILIES: dict[type[Distribution], _Entry] = {}

_BY_NAME: dict[tuple[str, str], _Entry] = {
    (CONTRIB, name): _Entry(lambda _: ContribCategorical(), None)
    for name in ("MaskableCategoricalDistribution", "MaskableMultiCategoricalDistribution")
}
"""Entries of classes that need not be installed, by module and name."""


def register_family(
    distribution_class: type[D], make_family: Callable[[D], DistributionFamily], holds: type | None = None
) -> None:
    """
    Register a closed-form KL and metric for a distribution class.

    Without an entry both are estimated from the actions of the rollout
    (:class:`~sb3_trpo.distributions.sample_estimate.SampleEstimate`). Subclasses are included, unless they override
    ``log_prob``. A new entry replaces an earlier one for the same class.

    :param distribution_class: class of the SB3 distribution, as ``policy.get_distribution`` returns it
    :param make_family: maps a distribution to its family
    :param holds: class of the torch distribution in its attribute ``distribution``; for any other class the KL is
        estimated; None: not checked
    :raises TypeError: if ``distribution_class`` is not a class of SB3 distributions, or ``make_family`` cannot be called
    """
    if not (isinstance(distribution_class, type) and issubclass(distribution_class, Distribution)):
        raise TypeError(f"`distribution_class` must be a subclass of SB3's Distribution, not {described(distribution_class)}")
    if not callable(make_family):
        raise TypeError(f"`make_family` must be a function of the distribution, not {described(make_family)}")
    _FAMILIES[distribution_class] = _Entry(make_family, holds)


def distribution_family(distribution: Distribution) -> DistributionFamily:
    """
    Find the family of a distribution: its closed form if one is known, the sample estimate otherwise.

    A subclass keeps the closed form of its parent unless it overrides ``log_prob`` or holds another torch distribution.

    :param distribution: a distribution as ``policy.get_distribution`` returns it
    :return: its family
    """
    for parent in type(distribution).__mro__:
        entry = _FAMILIES.get(parent) or _BY_NAME.get((parent.__module__, parent.__name__))
        if entry is not None:
            known: Any = parent
            overrides_log_prob = type(distribution).log_prob is not known.log_prob
            if overrides_log_prob or (entry.holds is not None and type(distribution.distribution) is not entry.holds):
                return SampleEstimate()
            family = entry.make_family(distribution)
            if not isinstance(family, DistributionFamily):
                raise TypeError(
                    f"`make_family` of {parent.__name__} must return a DistributionFamily, not {described(family)}"
                )
            return family
    return SampleEstimate()


register_family(
    ClippedGaussianDistribution, lambda clipped: ClippedGaussian(clipped.low, clipped.high), th.distributions.Normal
)
register_family(BetaDistribution, lambda _: Beta(), th.distributions.Beta)
for _gaussian in (DiagGaussianDistribution, SquashedDiagGaussianDistribution, StateDependentNoiseDistribution):
    register_family(_gaussian, lambda _: Gaussian(), th.distributions.Normal)
register_family(CategoricalDistribution, lambda _: Categorical(), th.distributions.Categorical)
register_family(MultiCategoricalDistribution, lambda _: Categorical(), list)
register_family(BernoulliDistribution, lambda _: Bernoulli(), th.distributions.Bernoulli)
register_family(MaskedBernoulliDistribution, lambda _: MaskedBernoulli(), th.distributions.Bernoulli)

"""
Distributions of discrete actions, some of which are forbidden.

A forbidden value has the logit -inf. So its probability is 0, whatever the logits of the others are, and neither gradient nor
Fisher matrix depends on the number that the network computes for it.
"""

from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    Distribution,
    MultiCategoricalDistribution,
)

C = TypeVar("C", bound="MaskedCategoricalDistribution")
M = TypeVar("M", bound="MaskedMultiCategoricalDistribution")
B = TypeVar("B", bound="MaskedBernoulliDistribution")

CONTRIB = "sb3_contrib.common.maskable.distributions"
"""The module of sb3-contrib's distributions, which need not be installed."""


class MaskedCategoricalDistribution(CategoricalDistribution):
    """
    SB3's distribution of one discrete action with n values, of which masks forbid some.

    :param action_dim: n
    :param masks: the values that are allowed in each of B states, at least one, shape (B, n), bool
    """

    def __init__(self, action_dim: int, masks: th.Tensor) -> None:
        super().__init__(action_dim)
        self.masks = masks

    def proba_distribution(self: C, action_logits: th.Tensor) -> C:
        """
        Set the logits.

        :param action_logits: shape (B, n); those of forbidden values do not matter
        :return: the distribution itself
        """
        return super().proba_distribution(forbid(action_logits, self.masks))


class MaskedMultiCategoricalDistribution(MultiCategoricalDistribution):
    """
    SB3's distribution of several discrete actions, of whose values masks forbid some.

    :param action_dims: number of values of each action, n in all
    :param masks: the values that are allowed in each of B states, at least one of each action, shape (B, n), bool
    """

    def __init__(self, action_dims: list[int], masks: th.Tensor) -> None:
        super().__init__(action_dims)
        self.masks = masks

    def proba_distribution(self: M, action_logits: th.Tensor) -> M:
        """
        Set the logits.

        :param action_logits: shape (B, n); those of forbidden values do not matter
        :return: the distribution itself
        """
        return super().proba_distribution(forbid(action_logits, self.masks))


class MaskedBernoulliDistribution(BernoulliDistribution):
    """
    SB3's distribution of d binary actions, of which masks force some.

    :param action_dims: d
    :param masks: whether off and whether on is allowed, one after the other for each action, at least one of them, in each of
        B states, shape (B, 2 d), bool
    """

    def __init__(self, action_dims: int, masks: th.Tensor) -> None:
        super().__init__(action_dims)
        self.masks = masks
        off, on = masks.view(-1, action_dims, 2).unbind(dim=2)
        self._free = off & on
        self._on = on

    def proba_distribution(self: B, action_logits: th.Tensor) -> B:
        """
        Set the logits.

        :param action_logits: shape (B, d); those of forced actions do not matter
        :return: the distribution itself
        """
        check_number(action_logits, self.masks)
        return super().proba_distribution(th.where(self._free, action_logits, 0.0))

    @property
    def logits(self) -> th.Tensor:
        """Return the logits, shape (B, d): inf where an action is on by force, -inf where it is off by force."""
        bernoulli: Any = self.distribution
        return th.where(self._free, bernoulli.logits, th.where(self._on, th.inf, -th.inf))

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        """
        Compute the log-probability of actions, summed over their dimensions.

        :param actions: shape (B, d)
        :return: shape (B,), nats; -inf if one is forbidden
        """
        bernoulli: Any = self.distribution
        forced = th.where(actions == self._on, 0.0, -th.inf)
        return th.where(self._free, bernoulli.log_prob(actions), forced).sum(dim=1)

    def entropy(self) -> th.Tensor:
        """
        Compute the entropy, summed over the actions.

        :return: shape (B,), nats
        """
        bernoulli: Any = self.distribution
        return th.where(self._free, bernoulli.entropy(), 0.0).sum(dim=1)

    def sample(self) -> th.Tensor:
        """
        Draw actions.

        :return: shape (B, d)
        """
        drawn = super().sample()
        return th.where(self._free, drawn, self._on.to(drawn.dtype))

    def mode(self) -> th.Tensor:
        """
        Find the most probable actions.

        :return: shape (B, d)
        """
        mode = super().mode()
        return th.where(self._free, mode, self._on.to(mode.dtype))


def forbid(logits: th.Tensor, masks: th.Tensor) -> th.Tensor:
    """
    Replace the logits of forbidden values by -inf.

    :param logits: shape (B, n)
    :param masks: the values that are allowed, shape (B, n), bool
    :return: shape (B, n)
    """
    check_number(logits, masks)
    return th.where(masks, logits, -th.inf)


def check_number(logits: th.Tensor, masks: th.Tensor) -> None:
    """
    Refuse masks of other states.

    :param logits: shape (B, ...)
    :param masks: shape (B, n)
    :raises ValueError: if there is not one mask for each state
    """
    if logits.shape[0] != masks.shape[0]:  # `len` would fix the number of states in a trace
        raise ValueError(f"there must be one action mask for each of the {len(logits)} observations, not {len(masks)}")


def masked(distribution: Distribution, masks: th.Tensor) -> Distribution:
    """
    Make the masked form of a distribution, without parameters yet.

    :param distribution: SB3's distribution of discrete or binary actions, its masked form, or sb3-contrib's maskable one
    :param masks: the values that are allowed in each of B states, shape (B, n), bool
    :return: a new distribution, which ``proba_distribution`` gives its parameters
    :raises ValueError: if it is another distribution
    """
    cls: type = type(distribution)
    if isinstance(distribution, (CategoricalDistribution, MultiCategoricalDistribution, BernoulliDistribution)):
        if cls in (CategoricalDistribution, MaskedCategoricalDistribution):
            return MaskedCategoricalDistribution(distribution.action_dim, masks)  # type: ignore[union-attr]
        if cls in (MultiCategoricalDistribution, MaskedMultiCategoricalDistribution):
            return MaskedMultiCategoricalDistribution(distribution.action_dims, masks)  # type: ignore[union-attr, arg-type]
        if cls in (BernoulliDistribution, MaskedBernoulliDistribution):
            return MaskedBernoulliDistribution(distribution.action_dims, masks)  # type: ignore[union-attr, arg-type]
    elif cls.__module__ == CONTRIB:
        sizes: Any = vars(distribution)
        if "action_dims" in sizes:
            return MaskedMultiCategoricalDistribution(list(sizes["action_dims"]), masks)
        return MaskedCategoricalDistribution(sizes["action_dim"], masks)
    raise ValueError(
        "action masks need SB3's or sb3-contrib's distribution of discrete or binary actions; the policy draws its actions "
        f"from a {cls.__module__}.{cls.__qualname__}"
    )

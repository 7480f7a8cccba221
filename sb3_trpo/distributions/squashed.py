"""Squashed actions that keep the sample they were made from, so that their log-probabilities are exact."""

import math
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution, TanhBijector
from stable_baselines3.common.policies import ActorCriticPolicy

_LARGEST = 3.0
"""
Size of a sample from which on it is kept instead of its tanh. Up to there, float32 holds the inverse of the tanh to five
digits; beyond 9 the tanh is 1. And no tanh is as large, so the two can be told apart.
"""


class KeepingTanh(TanhBijector):
    """
    SB3's tanh, which can also be inverted where float32 rounds it.

    SB3 clamps the inverse of a saturated action, so the log-probability is that of a sample that was not drawn, and its
    gradient is wrong. Here an action may be *kept*: it is the tanh of the sample if that is small, and the sample itself if
    that is at least 3. Policies still give and take plain squashed actions; only the rollout holds kept ones.

    :param epsilon: as in SB3, for the correction of the log-probability
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__(epsilon)
        self._drawn: th.Tensor | None = None

    def forward(self, x: th.Tensor) -> th.Tensor:  # type: ignore[override]
        """
        Squash samples, and remember them for :meth:`keep`.

        :param x: samples of the Gaussian
        :return: their tanh
        """
        self._drawn = x.detach()
        return th.tanh(x)

    def inverse(self, y: th.Tensor) -> th.Tensor:  # type: ignore[override]
        """
        Find the samples of squashed or kept actions.

        :param y: actions
        :return: samples of the Gaussian
        """
        return th.where(y.abs() > 1.0, y, TanhBijector.inverse(y))

    def log_prob_correction(self, x: th.Tensor) -> th.Tensor:
        """
        Compute the logarithm of the derivative of tanh, without SB3's epsilon, which matters where tanh saturates.

        :param x: samples of the Gaussian
        :return: log(1 - tanh²), of the same shape
        """
        return 2.0 * (math.log(2.0) - x - th.nn.functional.softplus(-2.0 * x))

    def keep(self, actions: th.Tensor) -> th.Tensor:
        """
        Turn the actions that were drawn last into kept ones.

        :param actions: squashed actions, shape (B, d)
        :return: kept actions; the same if they are not those drawn last
        """
        drawn, self._drawn = self._drawn, None
        if drawn is None or drawn.numel() != actions.numel() or not th.equal(th.tanh(drawn).view_as(actions), actions):
            return actions
        drawn = drawn.view_as(actions)
        return th.where(drawn.abs() >= _LARGEST, drawn, actions)


def install_keeping_tanh(policy: ActorCriticPolicy) -> None:
    """
    Let a policy with SB3's squashed gSDE keep its samples; do nothing to any other.

    :param policy: the policy
    """
    distribution = policy.action_dist
    if isinstance(distribution, StateDependentNoiseDistribution) and type(distribution.bijector) is TanhBijector:
        distribution.bijector = KeepingTanh(distribution.bijector.epsilon)


def with_samples(distribution: Distribution, actions: th.Tensor) -> th.Tensor:
    """
    Turn actions just drawn from a distribution into kept ones.

    :param distribution: any distribution
    :param actions: the actions
    :return: kept actions; the same for a distribution that keeps none
    """
    bijector: Any = getattr(distribution, "bijector", None)
    return bijector.keep(actions) if isinstance(bijector, KeepingTanh) else actions


def without_samples(actions: np.ndarray) -> np.ndarray:
    """
    Turn kept actions into plain squashed ones.

    :param actions: kept or squashed actions
    :return: squashed actions, in [-1, 1]
    """
    tanh = th.tanh(th.from_numpy(actions)).numpy()  # NumPy's may differ in the last bit from the tanh that was drawn
    return np.where(np.abs(actions) > 1.0, tanh, actions)

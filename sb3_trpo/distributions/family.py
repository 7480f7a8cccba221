"""
What the trust region needs to know of a family of action distributions.

Shapes: B states, d action dimensions, n choices of one discrete action. KL is in nats, one value a state, summed over the
action dimensions (the dimensions are independent, so the KL of the joint action is the sum).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch as th
from stable_baselines3.common.distributions import Distribution

Parameters: TypeAlias = tuple[th.Tensor, ...]
"""Parameters of the distribution at B states: tensors of shape (B, ...)."""

Metric: TypeAlias = Callable[[Parameters], Parameters]
"""A tangent t -> M t, both shaped like the parameters."""


class DistributionFamily(ABC):
    """A family of distributions: its parameters φ(θ), KL(old‖new) and the metric M(φ)."""

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

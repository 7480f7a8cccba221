"""The actor as a differentiable map from its parameters to the action distributions: what every way to compute it offers."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States

Objective = Callable[[Batch, Distribution], th.Tensor]
"""b states and the distribution there -> a number for each, shape (b,)."""


class Linearisation(Protocol):
    """The distribution's parameters and their Jacobian J at the states of one chunk."""

    def product(self, vector: th.Tensor) -> th.Tensor:
        """
        Multiply by the Fisher matrix of the chunk.

        :param vector: v, shape (P,)
        :return: weighted sum over the states of Jᵀ M J v, shape (P,); M is the metric of the distribution's family
        """


class ActorNetwork(Protocol):
    """The actor as a map from parameters to distributions: what the policy step asks of it."""

    def distribution(self, states: States) -> Distribution:
        """
        Compute the action distribution.

        :param states: b states
        :return: the distribution there, without a graph
        """

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """
        Differentiate a sum over states.

        :param objective: what to sum up
        :param chunk: the states
        :param parameters: P elements in all
        :return: gradient of the sum of the objective over the states, shape (P,)
        """

    def linearise(self, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> Linearisation:
        """
        Prepare products with the Jacobian.

        :param chunk: the states
        :param parameters: P elements in all
        :return: products with J at these states
        """

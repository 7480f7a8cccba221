"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.batch import Batch
from sb3_trpo.flat import flatten, unflatten_like
from sb3_trpo.kl import DistributionFamily, Parameters, distribution_family, unchecked_distributions


class FisherVectorProduct:
    """
    v -> F v at the policy's present parameters.

    J is the Jacobian of the distribution's parameters and M their own Fisher matrix in closed form
    (:meth:`~sb3_trpo.kl.DistributionFamily.metric_product`), so F is the Hessian of the mean KL at θ_old and positive
    semi-definite. A product costs one J v, by differentiating the linear map u -> Jᵀu, and one Jᵀw. One chunk keeps its
    graph from product to product; with several, each is built anew and memory stays that of one chunk.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param policy: the policy, in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the states to average over
    :param chunk_size: most states in one pass
    """

    def __init__(
        self, policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], batch: Batch, chunk_size: int
    ) -> None:
        self.policy = policy
        self.parameters = parameters
        self.batch = batch
        self.chunk_size = chunk_size
        self._graph = self._linearise(batch.take(slice(0, len(batch)))) if len(batch) <= chunk_size else None

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        if self._graph is not None:
            return self._graph.product(self.parameters, vector) / len(self.batch)
        total = th.zeros_like(vector)
        for chunk in self.batch.chunks(self.chunk_size):
            total += self._linearise(chunk).product(self.parameters, vector)
        return total / len(self.batch)

    def _linearise(self, chunk: Batch) -> "_Linearisation":
        with unchecked_distributions():
            distribution = self.policy.get_distribution(chunk.observations)
            family = distribution_family(distribution)
            outputs = family.parameters(distribution, chunk.actions)
        cotangents = tuple(th.zeros_like(output, requires_grad=True) for output in outputs)
        pullback = th.autograd.grad(
            outputs, self.parameters, cotangents, create_graph=True, allow_unused=True, materialize_grads=True
        )
        return _Linearisation(family, outputs, cotangents, pullback)


class _Linearisation(NamedTuple):
    """
    The graph of the distribution's parameters at one chunk, and of the linear map u -> Jᵀu.

    :param family: the distribution's family
    :param outputs: parameters of the distribution
    :param cotangents: u, all zeros: only the graph matters
    :param pullback: Jᵀu, one tensor a parameter
    """

    family: DistributionFamily
    outputs: Parameters
    cotangents: Parameters
    pullback: Sequence[th.Tensor]

    def product(self, parameters: Sequence[th.nn.Parameter], vector: th.Tensor) -> th.Tensor:
        """Sum over the chunk's states of Jᵀ M J v, shape (P,)."""
        directions = unflatten_like(parameters, vector)
        tangent = th.autograd.grad(
            self.pullback, self.cotangents, directions, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        weighted = self.family.metric_product(tuple(output.detach() for output in self.outputs), tangent)
        return flatten(
            th.autograd.grad(self.outputs, parameters, weighted, retain_graph=True, allow_unused=True, materialize_grads=True)
        )


def fisher_subset(n_states: int, fraction: float, seed: tuple[int, int]) -> th.Tensor:
    """
    Draw the states that the Fisher products use, from a generator of its own (appendix C.1 of the paper takes 10%).

    :param n_states: states to draw from
    :param fraction: share to take, in (0, 1]
    :param seed: seed of the run and number of the update, so that a resumed run draws the same
    :return: sorted positions, at least one
    """
    size = max(1, round(fraction * n_states))
    chosen = np.random.default_rng(seed).choice(n_states, size=size, replace=False, shuffle=False)
    return th.from_numpy(np.sort(chosen))

"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.attention import SDPBackend, sdpa_kernel

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
            return self._graph.product(vector) / len(self.batch)
        total = th.zeros_like(vector)
        for chunk in self.batch.chunks(self.chunk_size):
            total += self._linearise(chunk).product(vector)
        return total / len(self.batch)

    def _linearise(self, chunk: Batch) -> "_Linearisation":
        # the fused attention kernels cannot be differentiated twice
        with unchecked_distributions(), sdpa_kernel(SDPBackend.MATH):
            distribution = self.policy.get_distribution(chunk.observations)
            family = distribution_family(distribution)
            outputs = family.parameters(distribution, chunk.actions)
        return _Linearisation(family, outputs, self.parameters)


class _Linearisation:
    """
    The graph of the distribution's parameters at one chunk, and of the linear map u -> Jᵀu.

    :param family: the distribution's family
    :param outputs: parameters of the distribution; those without a graph, such as a frozen std, have J = 0
    :param parameters: the actor's parameters, P elements in all
    """

    def __init__(self, family: DistributionFamily, outputs: Parameters, parameters: Sequence[th.nn.Parameter]) -> None:
        self._family = family
        self._parameters = parameters
        self._outputs = outputs
        self._live = [output for output in outputs if output.requires_grad]
        # u is zero: only the graph of the map matters
        self._cotangents = [th.zeros_like(output, requires_grad=True) for output in self._live]
        self._pullback = self._vjp(self._cotangents, create_graph=True)

    def product(self, vector: th.Tensor) -> th.Tensor:
        """Sum over the chunk's states of Jᵀ M J v, shape (P,)."""
        pairs = zip(self._pullback, unflatten_like(self._parameters, vector), strict=True)
        linear = [(pulled, direction) for pulled, direction in pairs if pulled.requires_grad]
        if not linear:
            return th.zeros_like(vector)
        pulled, directions = zip(*linear, strict=True)
        live_tangent = iter(th.autograd.grad(pulled, self._cotangents, directions, retain_graph=True, materialize_grads=True))
        at = tuple(output.detach() for output in self._outputs)
        tangent = tuple(next(live_tangent) if output.requires_grad else th.zeros_like(output) for output in self._outputs)
        weighted = self._family.metric_product(at, tangent)
        live_weighted = [w for w, output in zip(weighted, self._outputs, strict=True) if output.requires_grad]
        return flatten(self._vjp(live_weighted))

    def _vjp(self, cotangents: Sequence[th.Tensor], create_graph: bool = False) -> tuple[th.Tensor, ...]:
        """Jᵀu, one tensor a parameter."""
        return th.autograd.grad(
            self._live,
            self._parameters,
            cotangents,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
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

"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.attention import SDPBackend, sdpa_kernel

from sb3_trpo.batch import Batch
from sb3_trpo.flat import flatten, unflatten_like
from sb3_trpo.kl import distribution_family, unchecked_distributions
from sb3_trpo.mlp import Mlp, why_not_mlp
from sb3_trpo.plain import actor_layers, encoder, why_not_plain

_BLOCK_ROWS = 1024
_OUTPUT_IS_PARAMETER = (
    DiagGaussianDistribution,
    CategoricalDistribution,
    MultiCategoricalDistribution,
    BernoulliDistribution,
)
"""Distributions whose parameters are the network's output, but for a constant shift of the logits and the std."""


class FisherVectorProduct:
    """
    v -> F v at the policy's present parameters.

    J is the Jacobian of the distribution's parameters and M their own Fisher matrix in closed form
    (:meth:`~sb3_trpo.kl.DistributionFamily.metric_product`), so F is the Hessian of the mean KL at θ_old and positive
    semi-definite. A product costs one J v and one Jᵀw. What they need of the forward pass is kept from product to product
    if the batch is one chunk; with several chunks it is computed anew and memory stays that of one.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param policy: the policy, in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the states to average over
    :param chunk_size: most states in one pass
    """

    def __init__(
        self, policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], batch: Batch, chunk_size: int
    ) -> None:
        self.batch = batch
        self.chunk_size = chunk_size
        self._policy = policy
        self._parameters = parameters
        self._linearise = _MlpLinearisation if _MlpLinearisation.serves(policy, parameters) else _GraphLinearisation
        whole = len(batch) <= chunk_size
        self._kept = self._linearise(policy, parameters, batch.take(slice(0, len(batch)))) if whole else None

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        if self._kept is not None:
            return self._kept.product(vector) / len(self.batch)
        total = th.zeros_like(vector)
        for chunk in self.batch.chunks(self.chunk_size):
            total += self._linearise(self._policy, self._parameters, chunk).product(vector)
        return total / len(self.batch)


class _MlpLinearisation:
    """
    Jᵀ M J of a plain MLP policy without autograd, in blocks of rows that stay in the processor's cache.

    :param policy: the policy
    :param parameters: the actor's parameters, P elements in all
    :param chunk: the states
    """

    def __init__(self, policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], chunk: Batch) -> None:
        assert isinstance(chunk.observations, th.Tensor)
        self._parameters = parameters
        self._mlp = Mlp(actor_layers(policy))
        self._log_std = getattr(policy, "log_std", None)
        with th.no_grad(), unchecked_distributions():
            distribution = policy.get_distribution(chunk.observations)
            self._family = distribution_family(distribution)
            at = self._family.parameters(distribution, chunk.actions)
        features = encoder(policy.observation_space)(chunk.observations.numpy())
        blocks = [slice(i, i + _BLOCK_ROWS) for i in range(0, len(chunk), _BLOCK_ROWS)]
        self._blocks = [(self._mlp.trace(features[rows]), tuple(part[rows] for part in at)) for rows in blocks]

    @staticmethod
    def serves(policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter]) -> bool:
        """Whether the policy is a plain MLP on the CPU, and these are all of its actor's parameters."""
        if policy.device.type != "cpu" or why_not_plain(policy) or why_not_mlp(actor_layers(policy)):
            return False
        mlp = Mlp(actor_layers(policy))
        own = [*mlp.parameters, *([policy.log_std] if isinstance(policy.action_dist, DiagGaussianDistribution) else [])]
        closed = type(policy.action_dist) in _OUTPUT_IS_PARAMETER
        return closed and mlp.differentiable and {id(p) for p in own} == {id(p) for p in parameters}

    def product(self, vector: th.Tensor) -> th.Tensor:
        """Sum over the chunk's states of Jᵀ M J v, shape (P,)."""
        result = th.zeros_like(vector)
        v = {id(p): part for p, part in zip(self._parameters, unflatten_like(self._parameters, vector), strict=True)}
        total = {id(p): part for p, part in zip(self._parameters, unflatten_like(self._parameters, result), strict=True)}
        tangents = [v[id(p)].numpy() for p in self._mlp.parameters]
        totals = [total[id(p)].numpy() for p in self._mlp.parameters]
        part = [np.empty_like(array) for array in totals]
        for trace, at in self._blocks:
            moved = th.from_numpy(self._mlp.jvp(trace, tangents))
            if self._log_std is None:
                weighted = self._family.metric_product(at, th.split(moved, [p.shape[1] for p in at], dim=1))
                cotangent = th.cat(weighted, dim=1)
            else:
                # std = exp(log_std) in every state
                std = at[1]
                cotangent, weighted_std = self._family.metric_product(at, (moved, std * v[id(self._log_std)]))
                total[id(self._log_std)] += (std * weighted_std).sum(dim=0)
            self._mlp.vjp(trace, cotangent.numpy(), part)
            for sum_, array in zip(totals, part, strict=True):
                sum_ += array
        return result


class _GraphLinearisation:
    """
    Jᵀ M J of any policy by autograd: J v is the derivative of the linear map u -> Jᵀu.

    :param policy: the policy
    :param parameters: the actor's parameters, P elements in all
    :param chunk: the states
    """

    def __init__(self, policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], chunk: Batch) -> None:
        # the fused attention kernels cannot be differentiated twice
        with unchecked_distributions(), sdpa_kernel(SDPBackend.MATH):
            distribution = policy.get_distribution(chunk.observations)
            self._family = distribution_family(distribution)
            self._outputs = self._family.parameters(distribution, chunk.actions)
        self._parameters = parameters
        # a frozen std, for instance, has no graph: J = 0
        self._live = [output for output in self._outputs if output.requires_grad]
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

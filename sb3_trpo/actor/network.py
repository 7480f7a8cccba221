"""The actor as a differentiable map from observations to distributions: by hand for a plain policy, else by autograd."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.attention import SDPBackend, sdpa_kernel

from sb3_trpo.actor.plain_policy import Layers, actor_layers, encoder, in_blocks, make_layers, why_not_plain_actor
from sb3_trpo.batch.batch import Batch, Observations
from sb3_trpo.distributions.clipped_gaussian import GAUSSIANS
from sb3_trpo.distributions.families import distribution_family, unchecked_distributions
from sb3_trpo.step.flat import flatten, unflatten_like

Objective = Callable[[Batch, Distribution], th.Tensor]
"""b states and the distribution there -> a number for each, shape (b,)."""


class Linearisation(Protocol):
    """The distribution's parameters and their Jacobian J at the states of one chunk."""

    def product(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (P,)
        :return: sum over the states of Jᵀ M J v, shape (P,); M is the metric of the distribution's family
        """


class ActorNetwork(Protocol):
    """What the policy step asks of the actor."""

    def distribution(self, observations: Observations) -> Distribution:
        """
        :param observations: shape (b, ...)
        :return: the action distribution there, without a graph
        """

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """
        :param objective: what to differentiate
        :param chunk: the states
        :param parameters: P elements in all
        :return: gradient of the sum of the objective over the states, shape (P,)
        """

    def linearise(self, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> Linearisation:
        """
        :param chunk: the states
        :param parameters: P elements in all
        :return: products with J at these states
        """


def actor_network(policy: ActorCriticPolicy) -> ActorNetwork:
    """
    :param policy: the policy, in evaluation mode
    :return: the fastest exact way to differentiate its actor
    """
    if policy.device.type == "cpu" and why_not_plain_actor(policy) is None:
        network = PlainNetwork(policy)
        if network.differentiable:
            return network
    return GraphNetwork(policy)


class GraphNetwork:
    """
    Any policy, by autograd.

    :param policy: the policy
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._policy = policy

    def distribution(self, observations: Observations) -> Distribution:
        """See :meth:`ActorNetwork.distribution`."""
        with th.no_grad(), unchecked_distributions():
            return self._policy.get_distribution(observations)

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """See :meth:`ActorNetwork.gradient`."""
        with unchecked_distributions():
            total = objective(chunk, self._policy.get_distribution(chunk.observations)).sum()
        if not total.requires_grad:  # what is trained may act in other states
            return total.new_zeros(sum(parameter.numel() for parameter in parameters))
        return flatten(th.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))

    def linearise(self, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> Linearisation:
        """See :meth:`ActorNetwork.linearise`."""
        return _GraphLinearisation(self._policy, chunk, parameters)


class _GraphLinearisation:
    """J v is the derivative of the linear map u -> Jᵀu, so autograd gives both products."""

    def __init__(self, policy: ActorCriticPolicy, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> None:
        # the fused attention kernels cannot be differentiated twice
        with unchecked_distributions(), sdpa_kernel(SDPBackend.MATH):
            distribution = policy.get_distribution(chunk.observations)
            family = distribution_family(distribution)
            self._outputs = family.parameters(distribution, chunk.actions)
        self._metric = family.metric(tuple(output.detach() for output in self._outputs))
        self._parameters = parameters
        # a frozen std, for instance, has no graph: J = 0
        self._live = [output for output in self._outputs if output.requires_grad]
        # u is zero: only the graph of the map matters
        self._cotangents = [th.zeros_like(output, requires_grad=True) for output in self._live]
        with _second_derivatives():
            self._pullback = self._vjp(self._cotangents, create_graph=True) if self._live else ()

    def product(self, vector: th.Tensor) -> th.Tensor:
        """See :meth:`Linearisation.product`."""
        if not self._live:
            return th.zeros_like(vector)
        pairs = zip(self._pullback, unflatten_like(self._parameters, vector), strict=True)
        linear = [(pulled, direction) for pulled, direction in pairs if pulled.requires_grad]
        if not linear:
            return th.zeros_like(vector)
        pulled, directions = zip(*linear, strict=True)
        with _second_derivatives():
            live = th.autograd.grad(pulled, self._cotangents, directions, retain_graph=True, materialize_grads=True)
        live_tangent = iter(live)
        tangent = tuple(next(live_tangent) if output.requires_grad else th.zeros_like(output) for output in self._outputs)
        weighted = self._metric(tangent)
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


@contextmanager
def differentiable_recurrence(policy: ActorCriticPolicy) -> Iterator[None]:
    """
    Let recurrent layers on a GPU be differentiated, twice and in evaluation mode: cuDNN's cannot, torch's own can.

    :param policy: the policy
    """
    recurrent = any(isinstance(module, th.nn.RNNBase) for module in policy.modules())
    if policy.device.type == "cuda" and recurrent:
        with th.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Say it where torch cannot take them."""
    try:
        yield
    except RuntimeError as error:
        if "is not implemented" in str(error) or "double backward" in str(error):
            raise ValueError(
                "the actor has an operation that cannot be differentiated twice, as Fisher-vector products need it (parts "
                f"under torch.compile cannot, nor can some activations): {error}"
            ) from error
        raise


class PlainNetwork:
    """
    A plain policy on the CPU, without autograd; only the distribution itself is left to torch.

    :param policy: a policy that :func:`~sb3_trpo.actor.plain_policy.why_not_plain_actor` accepts
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._dist = policy.action_dist
        self._log_std = policy.log_std if type(policy.action_dist) in GAUSSIANS else None
        self._encode = encoder(policy)
        self._layers = make_layers(policy, actor_layers(policy))
        self.differentiable = self._layers.differentiable

    def distribution(self, observations: Observations) -> Distribution:
        """See :meth:`ActorNetwork.distribution`."""
        assert isinstance(observations, th.Tensor)
        outputs = in_blocks(self._layers, self._encode, observations.numpy())
        with th.no_grad():
            return self._head(th.from_numpy(outputs), self._log_std)

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """See :meth:`ActorNetwork.gradient`."""
        traces = [self._layers.trace(features) for features in self._blocks(chunk.observations)]
        outputs = th.from_numpy(np.concatenate([trace[-1] for trace in traces])).requires_grad_()
        log_std = None if self._log_std is None else self._log_std.detach().requires_grad_()
        total = objective(chunk, self._head(outputs, log_std)).sum()
        leaves = [outputs] if log_std is None else [outputs, log_std]
        cotangent, *log_std_gradient = th.autograd.grad(total, leaves)
        sums = _Sums(self._layers, parameters)
        for trace, part in zip(traces, th.split(cotangent, self._layers.block_rows), strict=True):
            sums.add_vjp(trace, part)
        if self._log_std is not None:
            sums.add(self._log_std, log_std_gradient[0])
        return sums.vector

    def linearise(self, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> Linearisation:
        """See :meth:`ActorNetwork.linearise`."""
        traces = [self._layers.trace(features) for features in self._blocks(chunk.observations)]
        with th.no_grad():
            distribution = self._head(th.from_numpy(np.concatenate([trace[-1] for trace in traces])), self._log_std)
        return _PlainLinearisation(self._layers, self._log_std, distribution, traces, chunk, parameters)

    def _head(self, outputs: th.Tensor, log_std: th.Tensor | None) -> Distribution:
        with unchecked_distributions():
            if log_std is None:
                return self._dist.proba_distribution(outputs)
            return self._dist.proba_distribution(outputs, log_std)

    def _blocks(self, observations: Observations) -> Iterator[np.ndarray]:
        assert isinstance(observations, th.Tensor)
        for start in range(0, len(observations), self._layers.block_rows):
            yield self._encode(observations[start : start + self._layers.block_rows].numpy())


class _PlainLinearisation:
    """Both products by hand, block by block."""

    def __init__(
        self,
        layers: Layers,
        log_std: th.Tensor | None,
        distribution: Distribution,
        traces: list[list[np.ndarray]],
        chunk: Batch,
        parameters: Sequence[th.nn.Parameter],
    ) -> None:
        self._layers = layers
        self._log_std = log_std
        self._traces = traces
        self._parameters = parameters
        family = distribution_family(distribution)
        parts = (th.split(part, layers.block_rows) for part in family.parameters(distribution, chunk.actions))
        self._at = list(zip(*parts, strict=True))
        self._metrics = [family.metric(at) for at in self._at]

    def product(self, vector: th.Tensor) -> th.Tensor:
        """See :meth:`Linearisation.product`."""
        v = dict(zip(map(id, self._parameters), unflatten_like(self._parameters, vector), strict=True))
        tangents = [v[id(p)].numpy() if id(p) in v else np.zeros(p.shape, np.float32) for p in self._layers.parameters]
        sums = _Sums(self._layers, self._parameters)
        for trace, at, metric in zip(self._traces, self._at, self._metrics, strict=True):
            moved = th.from_numpy(self._layers.jvp(trace, tangents))
            if self._log_std is None:
                weighted = metric(th.split(moved, [part.shape[1] for part in at], dim=1))
                sums.add_vjp(trace, th.cat(weighted, dim=1))
            else:
                std = at[1]  # exp(log_std) in every state, so its tangent is std times that of log_std
                log_std_tangent = v.get(id(self._log_std), th.zeros_like(self._log_std))
                weighted_mean, weighted_std = metric((moved, std * log_std_tangent))
                sums.add_vjp(trace, weighted_mean)
                sums.add(self._log_std, (std * weighted_std).sum(dim=0))
        return sums.vector


class _Sums:
    """
    Adds up Jᵀu over blocks in one flat vector.

    :param layers: the network
    :param parameters: what the vector is made of, P elements in all; other parameters are left out
    """

    def __init__(self, layers: Layers, parameters: Sequence[th.nn.Parameter]) -> None:
        self.vector = th.zeros(sum(parameter.numel() for parameter in parameters), dtype=th.float32)
        self._layers = layers
        self._parts = dict(zip(map(id, parameters), unflatten_like(parameters, self.vector), strict=True))
        self._block = [np.empty(parameter.shape, dtype=np.float32) for parameter in layers.parameters]

    def add_vjp(self, trace: list[np.ndarray], cotangent: th.Tensor) -> None:
        """Add Jᵀu of the network at one block."""
        self._layers.vjp(trace, cotangent.numpy(), self._block)
        for parameter, array in zip(self._layers.parameters, self._block, strict=True):
            self.add(parameter, th.from_numpy(array))

    def add(self, parameter: th.Tensor, gradient: th.Tensor) -> None:
        """Add to the part of one parameter."""
        if id(parameter) in self._parts:
            self._parts[id(parameter)] += gradient

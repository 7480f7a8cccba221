"""The actor of a plain policy on the CPU, differentiated by hand."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.actor.interface import Linearisation, Objective
from sb3_trpo.actor.plain_policy import Layers, PlainPolicy, Reason
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.distributions.masked import masked
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.step.flat import unflatten_like


class HandActor:
    """
    Differentiates a plain policy on the CPU without autograd; only the distribution itself is left to torch.

    :param plain: the policy; its :attr:`~sb3_trpo.actor.plain_policy.PlainPolicy.actor` must be layers
    """

    def __init__(self, plain: PlainPolicy) -> None:
        assert not isinstance(plain.actor, Reason)
        self._dist = copy.copy(plain.policy.action_dist)  # a thread that predicts uses the policy's
        self._log_std = plain.log_std
        self._plain = plain
        self._layers = plain.actor

    def distribution(self, states: States) -> Distribution:
        """See :meth:`ActorNetwork.distribution`."""
        outputs = self._plain.outputs(states)
        with th.no_grad():
            return self._head(th.from_numpy(outputs), self._log_std, states.action_masks)

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """See :meth:`ActorNetwork.gradient`."""
        traces = [self._layers.trace(features) for features in self._blocks(chunk.states)]
        outputs = th.from_numpy(np.concatenate([trace[-1] for trace in traces])).requires_grad_()
        log_std = None if self._log_std is None else self._log_std.detach().requires_grad_()
        total = objective(chunk, self._head(outputs, log_std, chunk.states.action_masks)).sum()
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
        traces = [self._layers.trace(features) for features in self._blocks(chunk.states)]
        with th.no_grad():
            outputs = th.from_numpy(np.concatenate([trace[-1] for trace in traces]))
            distribution = self._head(outputs, self._log_std, chunk.states.action_masks)
        return _HandLinearisation(self._layers, self._log_std, distribution, traces, chunk, parameters)

    def _head(self, outputs: th.Tensor, log_std: th.Tensor | None, masks: th.Tensor | None) -> Distribution:
        distribution = self._dist if masks is None else masked(self._dist, masks)
        with unchecked_distributions():
            if log_std is None:
                return distribution.proba_distribution(outputs)
            return distribution.proba_distribution(outputs, log_std)

    def _blocks(self, states: States) -> Iterator[Any]:
        return self._plain.inputs(states, self._layers.block_rows)


class _HandLinearisation:
    """Computes J v and Jᵀu by hand, block by block."""

    def __init__(
        self,
        layers: Layers,
        log_std: th.Tensor | None,
        distribution: Distribution,
        traces: list[list[Any]],
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
        weights = chunk.weights
        self._weights = [None] * len(self._at) if weights is None else list(th.split(weights[:, None], layers.block_rows))

    def product(self, vector: th.Tensor) -> th.Tensor:
        """See :meth:`Linearisation.product`."""
        v = dict(zip(map(id, self._parameters), unflatten_like(self._parameters, vector), strict=True))
        tangents = [v[id(p)].numpy() if id(p) in v else np.zeros(p.shape, np.float32) for p in self._layers.parameters]
        sums = _Sums(self._layers, self._parameters)
        for trace, at, metric, weights in zip(self._traces, self._at, self._metrics, self._weights, strict=True):
            moved = th.from_numpy(self._layers.jvp(trace, tangents))
            if self._log_std is None:
                products = metric(th.split(moved, [part.shape[1] for part in at], dim=1))
                sums.add_vjp(trace, _weigh(th.cat(products, dim=1), weights))
            else:
                std = at[1]  # exp(log_std) in every state, so its tangent is std times the tangent of log_std
                log_std_tangent = v.get(id(self._log_std), th.zeros_like(self._log_std))
                of_mean, of_std = metric((moved, std * log_std_tangent))
                sums.add_vjp(trace, _weigh(of_mean, weights))
                sums.add(self._log_std, _weigh(std * of_std, weights).sum(dim=0))
        return sums.vector


def _weigh(values: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
    """Multiply rows by their weights, shape (b, 1); None leaves them unchanged."""
    return values if weights is None else values * weights


class _Sums:
    """
    Adds up Jᵀu over blocks in one flat vector.

    :param layers: the network
    :param parameters: the parameters that make up the vector, P elements in all; others are ignored
    """

    def __init__(self, layers: Layers, parameters: Sequence[th.nn.Parameter]) -> None:
        self.vector = th.zeros(sum(parameter.numel() for parameter in parameters), dtype=th.float32)
        self._layers = layers
        self._parts = dict(zip(map(id, parameters), unflatten_like(parameters, self.vector), strict=True))
        self._block = [np.empty(parameter.shape, dtype=np.float32) for parameter in layers.parameters]

    def add_vjp(self, trace: list[Any], cotangent: th.Tensor) -> None:
        """Add Jᵀu of the network for one block."""
        self._layers.vjp(trace, cotangent.numpy(), self._block)
        for parameter, array in zip(self._layers.parameters, self._block, strict=True):
            self.add(parameter, th.from_numpy(array))

    def add(self, parameter: th.Tensor, gradient: th.Tensor) -> None:
        """Add to one parameter's part of the vector."""
        if id(parameter) in self._parts:
            self._parts[id(parameter)] += gradient

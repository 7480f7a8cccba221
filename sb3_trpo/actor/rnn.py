"""
LSTM and GRU layers in NumPy: values, Jacobian products and gradients through time without autograd's overhead.

Everything that does not depend on the step before is one matrix product for all steps. The loop over time has the rest: one
small product and a few elementwise operations for all sequences that are still running. The derivatives are linear
recurrences, whose coefficients are computed once for all products.

Shapes: B steps in all, U sequences, n_in inputs, H units. All steps are packed
(:class:`~sb3_trpo.actor.packing.Packing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from torch import nn

from sb3_trpo.actor.mlp import Array
from sb3_trpo.actor.packing import Packing


class LayerTrace(Protocol):
    """One layer's pass over packed sequences."""

    outputs: Array
    """h of every step, shape (B, H)"""

    @property
    def after(self) -> tuple[Array, ...]:
        """Return the state after the last step of each sequence, in the packing's order, each of shape (U, H)."""

    def jvp(self, tangents: Sequence[Array], inputs: Array | None) -> Array:
        """
        Compute the change of the outputs.

        :param tangents: change of the layer's four parameters
        :param inputs: change of the inputs, shape (B, n_in); None: none
        :return: shape (B, H)
        """

    def vjp(self, cotangent: Array, out: Sequence[Array]) -> Array:
        """
        Compute the gradient of Σ cotangent · outputs.

        :param cotangent: shape (B, H); overwritten
        :param out: arrays for the gradients of the layer's parameters
        :return: factors whose product with the input weights is the gradient of the inputs, shape (B, k H)
        """


class LstmTrace:
    """
    Runs an LSTM layer over packed sequences.

    Gates of a step are i, f, g, o, as in torch: c = f c₋ + i g, h = o tanh c.

    :param parameters: input weights (4H, n_in), recurrent weights (4H, H), and both biases (4H,)
    :param inputs: shape (B, n_in)
    :param packing: where the steps are
    :param first: h and c before the first step, each of shape (U, H), in the packing's order
    """

    def __init__(self, parameters: Sequence[Array], inputs: Array, packing: Packing, first: Sequence[Array]) -> None:
        self._parameters, self._inputs, self._packing, self._first = parameters, inputs, packing, first
        weight, recurrent, bias, recurrent_bias = parameters
        size = recurrent.shape[1]
        gates = inputs.dot(weight.T)
        gates += bias + recurrent_bias
        # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, so one tanh computes all gates
        half = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], gates.dtype), size)
        offset = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], gates.dtype), size)
        gates *= half
        recurrent = np.ascontiguousarray(recurrent.T) * half
        outputs = np.empty((len(gates), size), gates.dtype)
        cells, squashed = np.empty_like(outputs), np.empty_like(outputs)
        h, c = first
        edges = packing.edges
        for begin, end in pairwise(edges):
            step, cell, n = gates[begin:end], cells[begin:end], end - begin
            step += h[:n].dot(recurrent)
            np.tanh(step, out=step)
            step *= half
            step += offset
            np.multiply(step[:, size : 2 * size], c[:n], out=cell)
            cell += step[:, :size] * step[:, 2 * size : 3 * size]
            h = np.tanh(cell, out=squashed[begin:end])
            h = np.multiply(step[:, 3 * size :], h, out=outputs[begin:end])
            c = cell
        self._gates, self._cells, self._squashed, self.outputs = gates, cells, squashed, outputs

    @property
    def after(self) -> tuple[Array, ...]:
        """See :meth:`LayerTrace.after`."""
        return self.outputs[self._packing.last], self._cells[self._packing.last]

    @cached_property
    def _before(self) -> Array:
        """h of the step before every step, shape (B, H)."""
        return self._packing.previous(self._first[0], self.outputs)

    @cached_property
    def _slopes(self) -> tuple[Array, Array, Array]:
        """
        Coefficients of the linearised step: factors of the changes of i, f, g in the change of c and of o in that of h, shape
        (B, 4H); f, and the factor of the change of c in that of h, each of shape (B, H).
        """
        size = self.outputs.shape[1]
        i, f, g, o = (self._gates[:, k * size : (k + 1) * size] for k in range(4))
        before = self._packing.previous(self._first[1], self._cells)
        factors = np.empty_like(self._gates)
        factors[:, :size] = g * i * (1 - i)
        factors[:, size : 2 * size] = before * f * (1 - f)
        factors[:, 2 * size : 3 * size] = i * (1 - g * g)
        factors[:, 3 * size :] = self._squashed * o * (1 - o)
        return factors, np.ascontiguousarray(f), o * (1 - self._squashed * self._squashed)

    def jvp(self, tangents: Sequence[Array], inputs: Array | None) -> Array:
        """See :meth:`LayerTrace.jvp`."""
        factors, forget, to_output = self._slopes
        size = self.outputs.shape[1]
        changes = self._inputs.dot(tangents[0].T)
        changes += self._before.dot(tangents[1].T)
        changes += tangents[2] + tangents[3]
        if inputs is not None:
            changes += inputs.dot(self._parameters[0].T)
        changes *= factors
        moved = np.empty_like(self.outputs)
        recurrent = np.ascontiguousarray(self._parameters[1].T)
        h = c = np.zeros_like(self._first[0])
        edges = self._packing.edges
        for begin, end in pairwise(edges):
            n = end - begin
            step = changes[begin:end]
            if begin:  # before the first step nothing has moved
                through = h[:n].dot(recurrent)
                through *= factors[begin:end]
                step += through
            c = c[:n] * forget[begin:end]
            c += step[:, :size]
            c += step[:, size : 2 * size]
            c += step[:, 2 * size : 3 * size]
            h = np.multiply(to_output[begin:end], c, out=moved[begin:end])
            h += step[:, 3 * size :]
        return moved

    def vjp(self, cotangent: Array, out: Sequence[Array]) -> Array:
        """See :meth:`LayerTrace.vjp`."""
        factors, forget, to_output = self._slopes
        recurrent = self._parameters[1]
        size = self.outputs.shape[1]
        gates = np.empty_like(factors)
        by_gate, factors_by_gate = gates.reshape(-1, 4, size), factors.reshape(-1, 4, size)
        edges = self._packing.edges
        h = c = np.zeros((0, size), cotangent.dtype)
        for begin, end in zip(edges[-2::-1], edges[:0:-1], strict=True):
            of_h = cotangent[begin:end]
            of_h[: len(h)] += h
            of_c = to_output[begin:end] * of_h
            of_c[: len(c)] += c
            step = by_gate[begin:end]
            np.multiply(factors_by_gate[begin:end, :3], of_c[:, None], out=step[:, :3])
            np.multiply(factors_by_gate[begin:end, 3], of_h, out=step[:, 3])
            of_c *= forget[begin:end]
            c = of_c
            h = gates[begin:end].dot(recurrent)
        np.dot(gates.T, self._inputs, out=out[0])
        np.dot(gates.T, self._before, out=out[1])
        np.sum(gates, axis=0, out=out[2])
        out[3][:] = out[2]
        return gates


class GruTrace:
    """
    Runs a GRU layer over packed sequences.

    Gates of a step are r, z, n, as in torch: n = tanh(W x + b + r (U h₋ + d)), h = (1 - z) n + z h₋.

    :param parameters: input weights (3H, n_in), recurrent weights (3H, H), and both biases (3H,)
    :param inputs: shape (B, n_in)
    :param packing: where the steps are
    :param first: h before the first step, shape (U, H), in the packing's order
    """

    def __init__(self, parameters: Sequence[Array], inputs: Array, packing: Packing, first: Sequence[Array]) -> None:
        self._parameters, self._inputs, self._packing, self._first = parameters, inputs, packing, first
        weight, recurrent, bias, recurrent_bias = parameters
        size = recurrent.shape[1]
        gates = inputs.dot(weight.T)
        gates += bias
        gates[:, : 2 * size] += recurrent_bias[: 2 * size]
        half = np.repeat(np.array([0.5, 0.5, 1.0], gates.dtype), size)
        gates *= half  # see LstmTrace
        recurrent = np.ascontiguousarray(recurrent.T) * half
        outputs, inner = np.empty((len(gates), size), gates.dtype), np.empty((len(gates), size), gates.dtype)
        (h,) = first
        edges = packing.edges
        for begin, end in pairwise(edges):
            step, gated, n = gates[begin:end], inner[begin:end], end - begin
            through = h[:n].dot(recurrent)
            both = step[:, : 2 * size]
            both += through[:, : 2 * size]
            np.tanh(both, out=both)
            both *= 0.5
            both += 0.5
            np.add(through[:, 2 * size :], recurrent_bias[2 * size :], out=gated)
            new = step[:, 2 * size :]
            new += step[:, :size] * gated
            np.tanh(new, out=new)
            moved = h[:n] - new
            moved *= step[:, size : 2 * size]
            h = np.add(moved, new, out=outputs[begin:end])
        self._gates, self._inner, self.outputs = gates, inner, outputs

    @property
    def after(self) -> tuple[Array, ...]:
        """See :meth:`LayerTrace.after`."""
        return (self.outputs[self._packing.last],)

    @cached_property
    def _before(self) -> Array:
        """h of the step before every step, shape (B, H)."""
        return self._packing.previous(self._first[0], self.outputs)

    @cached_property
    def _slopes(self) -> tuple[Array, Array, Array]:
        """
        Coefficients of the linearised step: factors of the changes of the gates' inputs in the change of h, shape (B, 3H);
        the same with r in the last third, for the part that comes through the recurrent weights; and z, shape (B, H).
        """
        size = self.outputs.shape[1]
        r, z, new = (self._gates[:, k * size : (k + 1) * size] for k in range(3))
        factors = np.empty_like(self._gates)
        factors[:, 2 * size :] = to_new = (1 - z) * (1 - new * new)
        factors[:, :size] = to_new * self._inner * r * (1 - r)
        factors[:, size : 2 * size] = (self._before - new) * z * (1 - z)
        through = factors.copy()
        through[:, 2 * size :] *= r
        return factors, through, np.ascontiguousarray(z)

    def jvp(self, tangents: Sequence[Array], inputs: Array | None) -> Array:
        """See :meth:`LayerTrace.jvp`."""
        factors, through, keep = self._slopes
        size = self.outputs.shape[1]
        changes = self._inputs.dot(tangents[0].T)
        changes += tangents[2]
        if inputs is not None:
            changes += inputs.dot(self._parameters[0].T)
        changes *= factors
        recurrent_changes = self._before.dot(tangents[1].T)
        recurrent_changes += tangents[3]
        recurrent_changes *= through
        changes += recurrent_changes
        moved: Array = changes.reshape(-1, 3, size).sum(axis=1)
        recurrent = np.ascontiguousarray(self._parameters[1].T)
        edges = self._packing.edges
        h = moved[: edges[1]]
        for begin, end in pairwise(edges[1:]):
            n = end - begin
            step = h[:n].dot(recurrent)
            step *= through[begin:end]
            old, h = h[:n], moved[begin:end]
            h += step[:, :size]
            h += step[:, size : 2 * size]
            h += step[:, 2 * size :]
            h += keep[begin:end] * old
        return moved

    def vjp(self, cotangent: Array, out: Sequence[Array]) -> Array:
        """See :meth:`LayerTrace.vjp`."""
        factors, through, keep = self._slopes
        recurrent = self._parameters[1]
        size = self.outputs.shape[1]
        recurrent_gates = np.empty_like(through)
        by_gate, through_by_gate = recurrent_gates.reshape(-1, 3, size), through.reshape(-1, 3, size)
        edges = self._packing.edges
        h = np.zeros((0, size), cotangent.dtype)
        for begin, end in zip(edges[-2::-1], edges[:0:-1], strict=True):
            of_h = cotangent[begin:end]
            of_h[: len(h)] += h
            np.multiply(through_by_gate[begin:end], of_h[:, None], out=by_gate[begin:end])
            h = recurrent_gates[begin:end].dot(recurrent)
            h += keep[begin:end] * of_h
        gates = recurrent_gates.copy()
        np.multiply(factors[:, 2 * size :], cotangent, out=gates[:, 2 * size :])
        np.dot(gates.T, self._inputs, out=out[0])
        np.dot(recurrent_gates.T, self._before, out=out[1])
        np.sum(gates, axis=0, out=out[2])
        np.sum(recurrent_gates, axis=0, out=out[3])
        return gates


TRACES: dict[type[nn.Module], type[LstmTrace] | type[GruTrace]] = {nn.LSTM: LstmTrace, nn.GRU: GruTrace}
"""How to run each kind of torch's recurrent layers."""


def why_not_rnn(rnn: nn.Module) -> str | None:
    """
    Tell whether :data:`TRACES` compute what a recurrent module does in evaluation mode.

    :param rnn: any module
    :return: None if they do; otherwise the first reason why not
    """
    if type(rnn) not in TRACES:
        return f"the recurrent layer is a {type(rnn).__name__}"
    assert isinstance(rnn, nn.RNNBase)
    if not rnn.bias or rnn.bidirectional or rnn.batch_first or rnn.proj_size:
        return f"the {type(rnn).__name__} has no bias, or reads in another order"
    return None


def lstm_step(parameters: Sequence[Array], inputs: Array, state: Sequence[Array]) -> tuple[Array, ...]:
    """
    Take one step of an LSTM layer.

    :param parameters: as for :class:`LstmTrace`
    :param inputs: shape (n, n_in)
    :param state: h and c, each of shape (n, H)
    :return: the new h and c
    """
    weight, recurrent, bias, recurrent_bias = parameters
    h, c = state
    size = h.shape[1]
    gates = inputs.dot(weight.T)
    gates += h.dot(recurrent.T)
    gates += bias
    gates += recurrent_bias
    new = np.tanh(gates[:, 2 * size : 3 * size])
    gates *= 0.5  # see LstmTrace
    np.tanh(gates, out=gates)
    gates *= 0.5
    gates += 0.5
    cells = gates[:, size : 2 * size] * c
    new *= gates[:, :size]
    cells += new
    outputs = np.tanh(cells)
    outputs *= gates[:, 3 * size :]
    return outputs, cells


def gru_step(parameters: Sequence[Array], inputs: Array, state: Sequence[Array]) -> tuple[Array, ...]:
    """
    Take one step of a GRU layer.

    :param parameters: as for :class:`GruTrace`
    :param inputs: shape (n, n_in)
    :param state: h, shape (n, H)
    :return: the new h
    """
    weight, recurrent, bias, recurrent_bias = parameters
    (h,) = state
    size = h.shape[1]
    gates = inputs.dot(weight.T)
    gates += bias
    through = h.dot(recurrent.T)
    through += recurrent_bias
    both = gates[:, : 2 * size]
    both += through[:, : 2 * size]
    both *= 0.5  # see LstmTrace
    np.tanh(both, out=both)
    both *= 0.5
    both += 0.5
    new = both[:, :size] * through[:, 2 * size :]
    new += gates[:, 2 * size :]
    np.tanh(new, out=new)
    moved = h - new
    moved *= both[:, size:]
    moved += new
    return (moved,)


STEPS = {nn.LSTM: lstm_step, nn.GRU: gru_step}
"""How to take one step of each kind of torch's recurrent layers."""

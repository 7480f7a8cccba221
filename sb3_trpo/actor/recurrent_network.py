"""Recurrent layers and the MLP behind them in NumPy, as one network with Jacobian products."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_trpo.actor.mlp import Array, Mlp, ParameterViews
from sb3_trpo.actor.packing import Memory, Packing, Sequences
from sb3_trpo.actor.rnn import STEPS, TRACES, LayerTrace

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""The parameters of one layer of torch's recurrent modules."""


class RecurrentNetwork:
    """
    A recurrent module of torch, then Linear, activation, …, Linear, with their parameters.

    :param rnn: a module that :func:`~sb3_trpo.actor.rnn.why_not_rnn` accepts
    :param head: layers that :func:`~sb3_trpo.actor.mlp.why_not_mlp` accepts
    """

    block_rows = sys.maxsize
    """Sequences are not divided: the chunk that holds them is small enough."""

    def __init__(self, rnn: nn.RNNBase, head: Sequence[nn.Module]) -> None:
        self._views = ParameterViews([(rnn._parameters, f"{name}_l{i}") for i in range(rnn.num_layers) for name in _NAMES])
        self._head = Mlp(head)
        self._trace, self._step = TRACES[type(rnn)], STEPS[type(rnn)]
        self._n_layers = rnn.num_layers

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return the parameters of every recurrent layer, in torch's order, then weight and bias of the others."""
        return [*self._views.tensors, *self._head.parameters]

    @property
    def n_out(self) -> int:
        """Return the number of output features."""
        return self._head.n_out

    @property
    def differentiable(self) -> bool:
        """Tell whether the slopes of all activations are known."""
        return self._head.differentiable

    def refresh(self) -> None:
        """Read parameters again that were replaced, or that changed on another device."""
        self._views.refresh()
        self._head.refresh()

    def step(self, inputs: Array, memory: Memory) -> tuple[Array, Memory]:
        """
        Take one step of n sequences.

        :param inputs: shape (n, n_in)
        :param memory: state before the step, each array of shape (n, n_layers, H)
        :return: outputs of shape (n, n_out), and the state after the step
        """
        layers = []
        for i in range(self._n_layers):
            layers.append(self._step(self._of_layer(i), inputs, [part[:, i] for part in memory]))
            inputs = layers[-1][0]
        return self._head(inputs), tuple(np.stack(parts, axis=1) for parts in zip(*layers, strict=True))

    def trace(self, sequences: Sequences) -> list[Any]:
        """
        Run the network, and keep what its derivatives need.

        :param sequences: the inputs
        :return: the packing, the trace of each recurrent layer, the values of the other layers, and at the end the output,
            sequence by sequence, shape (B, n_out)
        """
        packing = Packing.of(sequences.lengths)
        traces = self._run(packing, sequences)
        values = self._head.trace(traces[-1].outputs)
        return [packing, *traces, *values, packing.unpack(values[-1])]

    def hidden(self, sequences: Sequences) -> tuple[Array, Memory]:
        """
        Run the recurrent layers alone.

        :param sequences: the inputs
        :return: their outputs, sequence by sequence, shape (B, H), and the state after the last step of each
        """
        packing = Packing.of(sequences.lengths)
        traces = self._run(packing, sequences)
        return packing.unpack(traces[-1].outputs), _after(packing, traces)

    def __call__(self, sequences: Sequences) -> Array:
        """
        Evaluate the network.

        :param sequences: the inputs
        :return: outputs, sequence by sequence, shape (B, n_out)
        """
        return self.run(sequences)[0]

    def run(self, sequences: Sequences) -> tuple[Array, Memory]:
        """
        Run the network.

        :param sequences: the inputs
        :return: outputs, sequence by sequence, shape (B, n_out), and the state after the last step of each
        """
        packing = Packing.of(sequences.lengths)
        traces = self._run(packing, sequences)
        return packing.unpack(self._head(traces[-1].outputs)), _after(packing, traces)

    def jvp(self, trace: Sequence[Any], tangents: Sequence[Array]) -> Array:
        """
        Compute J v, the change of the output with the parameters.

        :param trace: result of :meth:`trace`
        :param tangents: v, shaped like :attr:`parameters`
        :return: shape (B, n_out)
        """
        packing, layers, values = self._parts(trace)
        moved: Array | None = None
        for i, layer in enumerate(layers):
            moved = layer.jvp(tangents[4 * i : 4 * i + 4], moved)
        return packing.unpack(self._head.jvp(values, tangents[4 * len(layers) :], moved))

    def vjp(self, trace: Sequence[Any], cotangent: Array, out: Sequence[Array]) -> None:
        """
        Compute Jᵀu, the gradient of Σ u · output with respect to the parameters.

        :param trace: result of :meth:`trace`
        :param cotangent: u, shape (B, n_out)
        :param out: arrays to write to, shaped like :attr:`parameters`
        """
        packing, layers, values = self._parts(trace)
        pulled = self._head.vjp(values, packing.pack(cotangent), out[4 * len(layers) :], to_inputs=True)
        for i in reversed(range(len(layers))):
            gates = layers[i].vjp(pulled, out[4 * i : 4 * i + 4])
            if i > 0:
                pulled = gates.dot(self._of_layer(i)[0])

    def _run(self, packing: Packing, sequences: Sequences) -> list[LayerTrace]:
        inputs = packing.pack(sequences.inputs)
        memory = [part[packing.order] for part in sequences.memory]
        traces: list[LayerTrace] = []
        for i in range(self._n_layers):
            first = [np.ascontiguousarray(part[:, i]) for part in memory]
            traces.append(self._trace(self._of_layer(i), inputs, packing, first))
            inputs = traces[-1].outputs
        return traces

    def _parts(self, trace: Sequence[Any]) -> tuple[Packing, list[LayerTrace], list[Array]]:
        n = 1 + self._n_layers
        return trace[0], list(trace[1:n]), list(trace[n:-1])

    def _of_layer(self, i: int) -> list[Array]:
        return self._views.arrays[4 * i : 4 * i + 4]


def _after(packing: Packing, traces: Sequence[LayerTrace]) -> Memory:
    """Collect the state after the last step of each sequence."""
    back = np.argsort(packing.order)
    of_layers = zip(*(trace.after for trace in traces), strict=True)
    return tuple(np.stack(parts, axis=1)[back] for parts in of_layers)

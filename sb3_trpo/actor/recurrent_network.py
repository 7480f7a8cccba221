"""Recurrent layers and the MLP behind them in NumPy, as one network with Jacobian products."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch as th
from torch import nn

from sb3_trpo.actor.mlp import Array, Mlp
from sb3_trpo.actor.packing import Memory, Packing, Sequences
from sb3_trpo.actor.recurrent_layers import RecurrentLayers, state_after


class RecurrentNetwork:
    """
    A recurrent module of torch, then Linear, activation, …, Linear, with their parameters.

    :param rnn: a module that :func:`~sb3_trpo.actor.rnn.why_not_rnn` accepts
    :param head: layers that :func:`~sb3_trpo.actor.mlp.why_not_mlp` accepts
    """

    block_rows = sys.maxsize
    """Sequences are not divided: the chunk that holds them is small enough."""

    def __init__(self, rnn: nn.RNNBase, head: Sequence[nn.Module]) -> None:
        self._recurrent = RecurrentLayers(rnn)
        self._head = Mlp(head)

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return the parameters of every recurrent layer, in torch's order, then weight and bias of the others."""
        return [*self._recurrent.parameters, *self._head.parameters]

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
        self._recurrent.refresh()
        self._head.refresh()

    def step(self, inputs: Array, memory: Memory) -> tuple[Array, Memory]:
        """
        Take one step of n sequences.

        :param inputs: shape (n, n_in)
        :param memory: state before the step, each array of shape (n, n_layers, H)
        :return: outputs of shape (n, n_out), and the state after the step
        """
        hidden, memory = self._recurrent.step(inputs, memory)
        return self._head(hidden), memory

    def trace(self, sequences: Sequences) -> list[Any]:
        """
        Run the network, and keep what its derivatives need.

        :param sequences: the inputs
        :return: the packing, the traces of the recurrent layers, the values of the others, and at the end the output,
            sequence by sequence, shape (B, n_out)
        """
        packing = Packing.of(sequences.lengths)
        traces = self._recurrent.trace(packing, sequences)
        values = self._head.trace(traces[-1].outputs)
        return [packing, traces, values, packing.unpack(values[-1])]

    def hidden(self, sequences: Sequences) -> tuple[Array, Memory]:
        """
        Run the recurrent layers alone.

        :param sequences: the inputs
        :return: their outputs, sequence by sequence, shape (B, H), and the state after the last step of each
        """
        packing = Packing.of(sequences.lengths)
        traces = self._recurrent.trace(packing, sequences)
        return packing.unpack(traces[-1].outputs), state_after(packing, traces)

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
        traces = self._recurrent.trace(packing, sequences)
        return packing.unpack(self._head(traces[-1].outputs)), state_after(packing, traces)

    def jvp(self, trace: Sequence[Any], tangents: Sequence[Array]) -> Array:
        """
        Compute J v, the change of the output with the parameters.

        :param trace: result of :meth:`trace`
        :param tangents: v, shaped like :attr:`parameters`
        :return: shape (B, n_out)
        """
        packing, layers, values, _ = trace
        of_recurrent, of_head = self._split(tangents)
        moved: Array = packing.unpack(self._head.jvp(values, of_head, self._recurrent.jvp(layers, of_recurrent)))
        return moved

    def vjp(self, trace: Sequence[Any], cotangent: Array, out: Sequence[Array]) -> None:
        """
        Compute Jᵀu, the gradient of Σ u · output with respect to the parameters.

        :param trace: result of :meth:`trace`
        :param cotangent: u, shape (B, n_out)
        :param out: arrays to write to, shaped like :attr:`parameters`
        """
        packing, layers, values, _ = trace
        of_recurrent, of_head = self._split(out)
        pulled = self._head.vjp(values, packing.pack(cotangent), of_head, to_inputs=True)
        self._recurrent.vjp(layers, pulled, of_recurrent)

    def _split(self, arrays: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        """Separate what belongs to the recurrent layers from what belongs to the others."""
        n = len(self._recurrent.parameters)
        return arrays[:n], arrays[n:]

"""All layers of a recurrent module in NumPy, with Jacobian products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch as th
from torch import nn

from sb3_trpo.actor.mlp import Array, ParameterViews
from sb3_trpo.actor.packing import Memory, Packing, Sequences
from sb3_trpo.actor.rnn import STEPS, TRACES, LayerTrace

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""The parameters of one layer of torch's recurrent modules."""

_N = len(_NAMES)


class RecurrentLayers:
    """
    A recurrent module of torch, with its parameters.

    :param rnn: a module that :func:`~sb3_trpo.actor.rnn.why_not_rnn` accepts
    """

    def __init__(self, rnn: nn.RNNBase) -> None:
        self._views = ParameterViews([(rnn._parameters, f"{name}_l{i}") for i in range(rnn.num_layers) for name in _NAMES])
        self._trace, self._step = TRACES[type(rnn)], STEPS[type(rnn)]
        self._n_layers = rnn.num_layers

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return the parameters of every layer, in torch's order."""
        return self._views.tensors

    def refresh(self) -> None:
        """Read parameters again that were replaced, or that changed on another device."""
        self._views.refresh()

    def step(self, inputs: Array, memory: Memory) -> tuple[Array, Memory]:
        """
        Take one step of n sequences.

        :param inputs: shape (n, n_in)
        :param memory: state before the step, each array of shape (n, n_layers, H)
        :return: outputs of shape (n, H), and the state after the step
        """
        layers = []
        for i in range(self._n_layers):
            layers.append(self._step(self._of_layer(i), inputs, [part[:, i] for part in memory]))
            inputs = layers[-1][0]
        return inputs, tuple(np.stack(parts, axis=1) for parts in zip(*layers, strict=True))

    def trace(self, packing: Packing, sequences: Sequences) -> list[LayerTrace]:
        """
        Run sequences, and keep what the derivatives need.

        :param packing: their places
        :param sequences: the inputs
        :return: the trace of each layer
        """
        inputs = packing.pack(sequences.inputs)
        memory = [part[packing.order] for part in sequences.memory]
        traces: list[LayerTrace] = []
        for i in range(self._n_layers):
            first = [np.ascontiguousarray(part[:, i]) for part in memory]
            traces.append(self._trace(self._of_layer(i), inputs, packing, first))
            inputs = traces[-1].outputs
        return traces

    def jvp(self, traces: Sequence[LayerTrace], tangents: Sequence[Array], inputs: Array | None = None) -> Array:
        """
        Compute the change of the outputs with the parameters and the inputs.

        :param traces: result of :meth:`trace`
        :param tangents: change of the parameters, shaped like :attr:`parameters`
        :param inputs: change of the inputs, packed, shape (B, n_in); None: none
        :return: packed, shape (B, H)
        """
        moved = inputs
        for i, layer in enumerate(traces):
            moved = layer.jvp(tangents[_N * i : _N * (i + 1)], moved)
        assert moved is not None
        return moved

    def vjp(self, traces: Sequence[LayerTrace], cotangent: Array, out: Sequence[Array]) -> Array:
        """
        Compute the gradient of Σ u · output.

        :param traces: result of :meth:`trace`
        :param cotangent: u, packed, shape (B, H); overwritten
        :param out: arrays for the gradients of the parameters, shaped like :attr:`parameters`
        :return: factors whose product with the first layer's input weights is the gradient of the inputs, packed
        """
        pulled = cotangent
        for i in reversed(range(len(traces))):
            gates = traces[i].vjp(pulled, out[_N * i : _N * (i + 1)])
            if i > 0:
                pulled = gates.dot(self._of_layer(i)[0])
        return gates

    def _of_layer(self, i: int) -> list[Array]:
        return self._views.arrays[_N * i : _N * (i + 1)]


def state_after(packing: Packing, traces: Sequence[LayerTrace]) -> Memory:
    """
    Collect the state after the last step of each sequence.

    :param packing: the places of the steps
    :param traces: the trace of each layer
    :return: the state, each array of shape (U, n_layers, H)
    """
    back = np.argsort(packing.order)
    of_layers = zip(*(trace.after for trace in traces), strict=True)
    return tuple(np.stack(parts, axis=1)[back] for parts in of_layers)

"""
Recurrent layers within an update that autograd differentiates: by hand on the CPU, and without cuDNN on a GPU.

Torch differentiates a recurrent layer step by step, dozens of small operations each, which takes longer than the convolutions
before it. Here the whole layer is one operation of autograd, which NumPy computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_trpo.actor.packing import Packing, Sequences
from sb3_trpo.actor.recurrent_layers import RecurrentLayers, state_after
from sb3_trpo.actor.rnn import why_not_rnn
from sb3_trpo.originals import altered_method, hooks_of, watched_globally
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.policies.sequences import Memory, run_sequences


@contextmanager
def differentiable_recurrence(interface: PolicyInterface) -> Iterator[None]:
    """
    Run the recurrent layers of a policy so that they can be differentiated twice, and fast.

    On the CPU, those of a :class:`~sb3_trpo.policies.recurrent_interface.RecurrentInterface` run by hand. On a GPU, cuDNN is
    off, which can differentiate them neither twice nor in evaluation mode.

    :param interface: interface to the policy
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in interface.policy.modules())
    if recurrent and interface.policy.device.type == "cuda":
        with th.backends.cudnn.flags(enabled=False):
            yield
    elif isinstance(interface, RecurrentInterface):
        with interface.recurrence(run_by_hand):
            yield
    else:
        yield


def run_by_hand(rnn: nn.RNNBase, features: th.Tensor, lengths: th.Tensor, memory: Memory) -> tuple[th.Tensor, Memory]:
    """
    Run a recurrent layer over sequences in NumPy, if that computes what torch would.

    Second derivatives are those that Fisher-vector products need: of the gradient as a linear function of the cotangent. That
    the gradient also depends on inputs and parameters is left out.

    :param rnn: an LSTM or a GRU
    :param features: the inputs, one sequence after another, shape (B, n_in)
    :param lengths: number of steps of each sequence, at least 1, on the CPU, shape (U,)
    :param memory: state before the first step of each sequence; no gradient reaches it
    :return: outputs in the order of the inputs, shape (B, hidden), and the state after the last step of each sequence
    """
    if not _is_plain(rnn, features):
        return run_sequences(rnn, features, lengths, memory)
    layers = RecurrentLayers(rnn)
    run = _Pass(layers, Sequences(features.detach().numpy(), lengths.numpy(), tuple(part.numpy() for part in memory)))
    outputs: th.Tensor = _Run.apply(run, features, *layers.parameters)  # type: ignore[no-untyped-call]
    return outputs, run.after


def _is_plain(rnn: nn.RNNBase, features: th.Tensor) -> bool:
    """Tell whether NumPy computes what torch would: nobody patched or observes the layer, and NumPy can read the numbers."""
    if why_not_rnn(rnn) or altered_method([rnn]) or watched_globally() or any(hooks_of(rnn)):
        return False
    places = {(part.device.type, part.dtype) for part in (features, *rnn.parameters())}
    return places in ({("cpu", th.float32)}, {("cpu", th.float64)}) and not th.is_autocast_enabled("cpu")


class _Pass:
    """
    One pass of recurrent layers over sequences, with its Jacobian products.

    :param layers: the layers
    :param sequences: the inputs
    """

    def __init__(self, layers: RecurrentLayers, sequences: Sequences) -> None:
        self._layers = layers
        self._packing = Packing.of(sequences.lengths)
        self._traces = layers.trace(self._packing, sequences)

    @property
    def outputs(self) -> th.Tensor:
        """Return the outputs, sequence by sequence, shape (B, H)."""
        return th.from_numpy(self._packing.unpack(self._traces[-1].outputs))

    @property
    def after(self) -> Memory:
        """Return the state after the last step of each sequence."""
        return tuple(map(th.from_numpy, state_after(self._packing, self._traces)))

    def vjp(self, cotangent: th.Tensor) -> tuple[th.Tensor, ...]:
        """Compute the gradients of inputs and parameters, given that of the outputs."""
        out = [np.empty(parameter.shape, cotangent.numpy().dtype) for parameter in self._layers.parameters]
        gates = self._layers.vjp(self._traces, self._packing.pack(cotangent.numpy()), out)
        inputs = gates.dot(self._layers.parameters[0].detach().numpy())
        return tuple(map(th.from_numpy, (self._packing.unpack(inputs), *out)))

    def jvp(self, inputs: th.Tensor, *tangents: th.Tensor) -> th.Tensor:
        """Compute the change of the outputs with inputs and parameters."""
        of_parameters = [tangent.numpy() for tangent in tangents]
        moved = self._layers.jvp(self._traces, of_parameters, self._packing.pack(inputs.numpy()))
        return th.from_numpy(self._packing.unpack(moved))


class _Run(th.autograd.Function):
    """The outputs of a pass, as a function of inputs and parameters."""

    @staticmethod
    def forward(ctx: Any, run: _Pass, *inputs: th.Tensor) -> th.Tensor:
        """Return the outputs."""
        ctx.run = run
        return run.outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: th.Tensor) -> Any:
        """Compute the gradient."""
        return None, *_Gradient.apply(ctx.run, *cotangents)  # type: ignore[no-untyped-call]


class _Gradient(th.autograd.Function):
    """The gradient of a pass, as a function of the cotangent alone."""

    @staticmethod
    def forward(ctx: Any, run: _Pass, cotangent: th.Tensor) -> tuple[th.Tensor, ...]:
        """Return the gradients of inputs and parameters."""
        ctx.run = run
        return run.vjp(cotangent.detach())

    @staticmethod
    def backward(ctx: Any, *tangents: th.Tensor) -> Any:
        """Compute the change of the outputs."""
        return None, ctx.run.jvp(*tangents)

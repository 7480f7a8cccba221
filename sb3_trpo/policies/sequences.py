"""Recurrent layers over many sequences of different lengths, in one call and without padding."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch as th
from torch import nn

Memory: TypeAlias = tuple[th.Tensor, ...]
"""State of a recurrent layer, each tensor of shape (U, n_layers, hidden): (h, c) of an LSTM, (h,) of a GRU."""

RunSequences: TypeAlias = Callable[[nn.RNNBase, th.Tensor, th.Tensor, Memory], tuple[th.Tensor, Memory]]
"""A way to run a recurrent layer over sequences, as :func:`run_sequences` does."""


class RecurrentStates(NamedTuple):
    """
    States of both recurrent layers of a policy, as sb3-contrib's ``RNNStates``.

    :param pi: state of the actor's, each tensor of shape (n_layers, n, hidden)
    :param vf: state of the critic's
    """

    pi: tuple[th.Tensor, ...]
    vf: tuple[th.Tensor, ...]


def n_memory_parts(rnn: nn.RNNBase) -> int:
    """
    Count the tensors in the state of a recurrent layer.

    :param rnn: an LSTM or a GRU
    :return: 2 for an LSTM, otherwise 1
    """
    return 2 if isinstance(rnn, nn.LSTM) else 1


def no_memory(rnn: nn.RNNBase, n: int) -> Memory:
    """
    Make the state in which an episode begins: zeros.

    :param rnn: a recurrent layer
    :param n: number of sequences
    :return: the state
    """
    like = first_weight(rnn)
    return tuple(like.new_zeros(n, rnn.num_layers, rnn.hidden_size) for _ in range(n_memory_parts(rnn)))


def first_weight(rnn: nn.RNNBase) -> th.Tensor:
    """
    Find a parameter, whose type and device are those of all: ``next(rnn.parameters())`` takes ten times as long.

    :param rnn: a recurrent layer
    :return: the parameter
    """
    weight: th.Tensor = rnn.weight_hh_l0  # type: ignore[assignment]
    return weight


def run_sequences(rnn: nn.RNNBase, features: th.Tensor, lengths: th.Tensor, memory: Memory) -> tuple[th.Tensor, Memory]:
    """
    Run a recurrent layer over sequences.

    :param rnn: an LSTM or a GRU
    :param features: the inputs, one sequence after another, shape (B, n_in)
    :param lengths: number of steps of each sequence, at least 1, on the CPU, shape (U,)
    :param memory: state before the first step of each sequence
    :return: outputs in the order of the inputs, shape (B, hidden), and the state after the last step of each sequence
    """
    # packed even if no step is missing: on the CPU, torch differentiates packed sequences several times as fast
    if len(features) == len(lengths):  # a single step of each
        packed = nn.utils.rnn.PackedSequence(features, th.tensor([len(features)]))
        outputs, after = rnn(packed, _to_torch(rnn, memory))
        return outputs.data, _from_torch(after)
    order = th.argsort(lengths, descending=True, stable=True)
    positions, alive = packed_positions(lengths, order)
    positions, order = positions.to(features.device), order.to(features.device)
    packed = nn.utils.rnn.PackedSequence(th.empty_like(features).index_copy(0, positions, features), alive)
    outputs, after = rnn(packed, _to_torch(rnn, tuple(part[order] for part in memory)))
    back = th.argsort(order)
    return outputs.data[positions], tuple(part[back] for part in _from_torch(after))


def run_step(rnn: nn.RNNBase, features: th.Tensor, memory: Memory) -> tuple[th.Tensor, Memory]:
    """
    Run a recurrent layer one step, in operations that can be traced for any number of sequences.

    :param rnn: an LSTM or a GRU
    :param features: the inputs, one of each sequence, shape (U, n_in)
    :param memory: state before the step
    :return: outputs, shape (U, hidden), and the state after the step
    """
    outputs, after = rnn(features.unsqueeze(0), _to_torch(rnn, memory))
    return outputs.squeeze(0), _from_torch(after)


def packed_positions(lengths: th.Tensor, order: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Find where the steps of sequences stand in a packed batch, which has all first steps first, then all second ones.

    :param lengths: number of steps of each sequence, shape (U,)
    :param order: the sequences from the longest to the shortest, shape (U,)
    :return: position of every step, sequence by sequence, shape (B,), and number of sequences that have a t-th step, shape
        (T,)
    """
    n_steps = int(lengths.max())
    # sequences with more than t steps: all, minus those that have ended
    ended = th.bincount(lengths, minlength=n_steps + 1).cumsum(0)
    alive = len(lengths) - ended[:n_steps]
    offsets = alive.cumsum(0) - alive
    rank = th.argsort(order)
    first = lengths.cumsum(0) - lengths
    step = th.arange(int(lengths.sum())) - th.repeat_interleave(first, lengths)
    return offsets[step] + th.repeat_interleave(rank, lengths), alive


def _to_torch(rnn: nn.RNNBase, memory: Memory) -> th.Tensor | Memory:
    """Convert a state to torch's form, whose first dimension is the layer."""
    parts = tuple(part.transpose(0, 1).contiguous() for part in memory)
    return parts if isinstance(rnn, nn.LSTM) else parts[0]


def _from_torch(state: th.Tensor | Memory) -> Memory:
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(part.transpose(0, 1) for part in parts)

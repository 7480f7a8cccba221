"""Sequences of different lengths in one call give what each alone gives."""

import pytest
import torch as th
from torch import nn

from sb3_trpo.policies.sequences import no_memory, packed_positions, run_sequences, run_step

LAYERS = {"lstm": nn.LSTM(3, 4, num_layers=2), "gru": nn.GRU(3, 4), "lstm_double": nn.LSTM(3, 4).double()}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [[2, 5, 1, 5], [3, 3], [1], [1, 1, 1], [4, 1]])
def test_sequences_are_run_as_each_alone(name: str, lengths: list[int]) -> None:
    rnn = LAYERS[name]
    dtype = next(rnn.parameters()).dtype
    features = th.randn(sum(lengths), 3, dtype=dtype)
    memory = tuple(th.randn_like(part) for part in no_memory(rnn, len(lengths)))
    outputs, after = run_sequences(rnn, features, th.tensor(lengths), memory)
    for i, inputs in enumerate(th.split(features, lengths)):
        state = tuple(part[i].unsqueeze(1).contiguous() for part in memory)
        expected, last = rnn(inputs.unsqueeze(1), state if isinstance(rnn, nn.LSTM) else state[0])
        th.testing.assert_close(th.split(outputs, lengths)[i], expected.squeeze(1))
        for part, value in zip(after, last if isinstance(last, tuple) else (last,), strict=True):
            th.testing.assert_close(part[i], value.squeeze(1))


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_is_a_sequence_of_one(name: str) -> None:
    rnn = LAYERS[name]
    features = th.randn(5, 3, dtype=next(rnn.parameters()).dtype)
    memory = tuple(th.randn_like(part) for part in no_memory(rnn, 5))
    outputs, after = run_step(rnn, features, memory)
    expected, last = run_sequences(rnn, features, th.ones(5, dtype=th.long), memory)
    th.testing.assert_close(outputs, expected)
    for found, part in zip(after, last, strict=True):
        th.testing.assert_close(found, part)


def test_packed_positions() -> None:
    positions, alive = packed_positions(th.tensor([1, 3, 2]), th.tensor([1, 2, 0]))
    assert alive.tolist() == [3, 2, 1]
    assert positions.tolist() == [2, 0, 3, 5, 1, 4]


def test_no_padding_is_computed() -> None:
    seen = []
    rnn = nn.LSTM(1, 1)
    rnn.register_forward_pre_hook(lambda module, args: seen.append(len(args[0].data)))
    run_sequences(rnn, th.randn(7, 1), th.tensor([1, 5, 1]), no_memory(rnn, 3))
    assert seen == [7]

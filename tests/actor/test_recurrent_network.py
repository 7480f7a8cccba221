"""Values, Jacobian products and steps of recurrent networks, in float64 against autograd."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_trpo.actor.packing import Sequences
from sb3_trpo.actor.recurrent_network import RecurrentNetwork
from sb3_trpo.actor.rnn import why_not_rnn
from sb3_trpo.policies.sequences import no_memory, run_sequences

LENGTHS = [3, 1, 6, 2, 6]
LAYERS = [(rnn, n) for rnn in (nn.LSTM, nn.GRU) for n in (1, 2)]


class Case:
    """A network with random memory, by torch and by hand."""

    def __init__(self, rnn: type[nn.RNNBase], n_layers: int, lengths: list[int] = LENGTHS) -> None:
        th.manual_seed(0)
        make: Any = rnn
        self.rnn: nn.RNNBase = make(3, 5, num_layers=n_layers).double()
        self.head = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.lengths = th.tensor(lengths)
        self.inputs = th.randn(sum(lengths), 3, dtype=th.float64)
        self.memory = tuple(th.randn_like(part) for part in no_memory(self.rnn, len(lengths)))
        self.network = RecurrentNetwork(self.rnn, list(self.head))
        memory = tuple(part.numpy() for part in self.memory)
        self.sequences = Sequences(self.inputs.numpy(), self.lengths.numpy(), memory)

    def torch(self) -> tuple[th.Tensor, tuple[th.Tensor, ...]]:
        outputs, after = run_sequences(self.rnn, self.inputs, self.lengths, self.memory)
        return self.head(outputs), after


def close(actual: np.ndarray, expected: th.Tensor) -> None:
    np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rnn", "n_layers"), LAYERS)
def test_values(rnn: type[nn.RNNBase], n_layers: int) -> None:
    case = Case(rnn, n_layers)
    outputs, after = case.torch()
    for actual in (case.network.trace(case.sequences)[-1], case.network(case.sequences)):
        close(actual, outputs)
    for part, expected in zip(case.network.run(case.sequences)[1], after, strict=True):
        close(part, expected)
    hidden, _ = case.network.hidden(case.sequences)
    close(hidden, run_sequences(case.rnn, case.inputs, case.lengths, case.memory)[0])


@pytest.mark.parametrize(("rnn", "n_layers"), LAYERS)
def test_jacobian_products(rnn: type[nn.RNNBase], n_layers: int) -> None:
    case = Case(rnn, n_layers)
    outputs, parameters = case.torch()[0], case.network.parameters
    assert {id(p) for p in parameters} == {id(p) for p in (*case.rnn.parameters(), *case.head.parameters())}
    trace = case.network.trace(case.sequences)
    u = th.randn_like(outputs)
    out = [np.empty(parameter.shape) for parameter in parameters]
    case.network.vjp(trace, u.numpy(), out)
    for actual, expected in zip(out, th.autograd.grad(outputs, parameters, u, retain_graph=True), strict=True):
        close(actual, expected)
    v = [th.randn_like(parameter) for parameter in parameters]
    cotangent = th.zeros_like(outputs, requires_grad=True)
    pulled = th.autograd.grad(outputs, parameters, cotangent, create_graph=True)
    close(case.network.jvp(trace, [part.numpy() for part in v]), th.autograd.grad(pulled, cotangent, v)[0])


@pytest.mark.parametrize(("rnn", "n_layers"), LAYERS)
def test_steps_are_the_sequence(rnn: type[nn.RNNBase], n_layers: int) -> None:
    case = Case(rnn, n_layers, [4, 4, 4])
    outputs, after = case.network.run(case.sequences)
    memory = case.sequences.memory
    for t in range(4):
        output, memory = case.network.step(case.sequences.inputs.reshape(3, 4, -1)[:, t], memory)
        np.testing.assert_allclose(output, outputs.reshape(3, 4, -1)[:, t], rtol=1e-12)
    for part, expected in zip(memory, after, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12)


def test_weights_that_change_are_read() -> None:
    case = Case(nn.GRU, 1)
    before = case.network(case.sequences)
    rnn: Any = case.rnn
    with th.no_grad():
        rnn.weight_hh_l0.mul_(2.0)
    close(case.network(case.sequences), case.torch()[0])
    rnn.weight_hh_l0 = nn.Parameter(th.zeros_like(rnn.weight_hh_l0))
    case.network.refresh()
    close(case.network(case.sequences), case.torch()[0])
    assert not np.allclose(before, case.network(case.sequences))


@pytest.mark.parametrize(
    ("rnn", "reason"),
    [
        (nn.RNN(2, 2), "the recurrent layer is a RNN"),
        (nn.Linear(2, 2), "the recurrent layer is a Linear"),
        (nn.LSTM(2, 2, bias=False), "the LSTM has no bias, or reads in another order"),
        (nn.LSTM(2, 4, proj_size=2), "the LSTM has no bias, or reads in another order"),
        (nn.GRU(2, 2, bidirectional=True), "the GRU has no bias, or reads in another order"),
        (nn.GRU(2, 2, num_layers=2, dropout=0.5), None),  # evaluation mode
    ],
)
def test_other_layers_are_refused(rnn: nn.Module, reason: str | None) -> None:
    assert why_not_rnn(rnn) == reason

"""Recurrent layers as one operation of autograd: values, gradients and Fisher-vector products are torch's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_trpo import RecurrentTRPO
from sb3_trpo.actor import recurrence
from sb3_trpo.actor.recurrence import differentiable_recurrence, run_by_hand
from sb3_trpo.policies.sequences import Memory, RunSequences, no_memory, run_sequences
from sb3_trpo.step.flat import flatten
from tests.toy_envs import OBSERVATIONS, RandomEnv

LENGTHS = th.tensor([3, 1, 6, 2, 6])
LAYERS = [(rnn, n) for rnn in (nn.LSTM, nn.GRU) for n in (1, 2)]


class Case:
    """A linear layer before and behind a recurrent one, in float64."""

    def __init__(self, rnn: type[nn.RNNBase], n_layers: int = 1) -> None:
        th.manual_seed(0)
        make: Any = rnn
        self.rnn: nn.RNNBase = make(3, 5, num_layers=n_layers).double()
        self.before, self.behind = nn.Linear(2, 3).double(), nn.Linear(5, 2).double()
        self.parameters = [*self.before.parameters(), *self.rnn.parameters(), *self.behind.parameters()]
        self.inputs = th.randn(int(LENGTHS.sum()), 2, dtype=th.float64)
        self.memory: Memory = tuple(th.randn_like(part) for part in no_memory(self.rnn, len(LENGTHS)))

    def run(self, run: RunSequences) -> tuple[th.Tensor, Memory]:
        outputs, after = run(self.rnn, self.before(self.inputs), LENGTHS, self.memory)
        return self.behind(outputs).tanh(), after


def close(actual: Any, expected: Any) -> None:
    th.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rnn", "n_layers"), LAYERS)
def test_values_and_gradients_are_those_of_torch(rnn: type[nn.RNNBase], n_layers: int) -> None:
    case = Case(rnn, n_layers)
    (outputs, after), (expected, expected_after) = case.run(run_by_hand), case.run(run_sequences)
    close((outputs, after), (expected, expected_after))
    assert "Backward" in type(outputs.grad_fn).__name__
    weights = th.randn_like(outputs)
    close(*(th.autograd.grad((weights * part).sum(), case.parameters) for part in (outputs, expected)))


@pytest.mark.parametrize(("rnn", "n_layers"), LAYERS)
def test_changes_of_the_outputs_are_those_of_torch(rnn: type[nn.RNNBase], n_layers: int) -> None:
    case = Case(rnn, n_layers)
    tangents = [th.randn_like(parameter) for parameter in case.parameters]
    found = []
    for run in (run_by_hand, run_sequences):
        outputs, _ = case.run(run)
        cotangent = th.zeros_like(outputs, requires_grad=True)
        pulled = th.autograd.grad(outputs, case.parameters, cotangent, create_graph=True)
        found.append(th.autograd.grad(pulled, cotangent, tangents))
    close(*found)


@pytest.mark.parametrize("frozen", ["weight_hh_l0", "bias_ih_l0"])
def test_frozen_parameters_have_no_gradient(frozen: str) -> None:
    case = Case(nn.LSTM)
    getattr(case.rnn, frozen).requires_grad_(False)
    trained = [parameter for parameter in case.parameters if parameter.requires_grad]
    close(*(th.autograd.grad(case.run(run)[0].sum(), trained) for run in (run_by_hand, run_sequences)))


def calls(case: Case, monkeypatch: pytest.MonkeyPatch) -> list[nn.RNNBase]:
    """Run a case by hand; return the layers that were left to torch."""
    left: list[nn.RNNBase] = []

    def record(rnn: nn.RNNBase, features: th.Tensor, lengths: th.Tensor, memory: Memory) -> tuple[th.Tensor, Memory]:
        left.append(rnn)
        return run_sequences(rnn, features, lengths, memory)

    monkeypatch.setattr(recurrence, "run_sequences", record)
    case.run(run_by_hand)
    return left


def test_what_numpy_would_miss_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(nn.LSTM)
    assert not calls(case, monkeypatch)
    seen: list[str] = []
    case.rnn.register_forward_hook(lambda module, inputs, output: seen.append("hook"))
    assert calls(case, monkeypatch) == [case.rnn]
    assert seen == ["hook"]
    without_bias = Case(nn.GRU)
    without_bias.rnn = nn.GRU(3, 5, bias=False).double()
    assert calls(without_bias, monkeypatch) == [without_bias.rnn]
    short = Case(nn.LSTM)
    for module in (short.rnn, short.before, short.behind):
        module.bfloat16()
    short.inputs, short.memory = short.inputs.bfloat16(), tuple(part.bfloat16() for part in short.memory)
    assert calls(short, monkeypatch) == [short.rnn]
    patched = Case(nn.LSTM)
    monkeypatch.setattr(patched.rnn, "forward", patched.rnn.forward)
    assert calls(patched, monkeypatch) == [patched.rnn]


@pytest.mark.parametrize(
    ("device", "layer", "cudnn"),
    [("cuda", nn.LSTM, False), ("cuda", nn.GRU, False), ("cuda", nn.Linear, True), ("cpu", nn.LSTM, True)],
)
def test_recurrent_layers_on_a_gpu_are_left_to_torch(device: str, layer: type[nn.Module], cudnn: bool) -> None:
    policy: Any = SimpleNamespace(device=th.device(device), modules=lambda: [layer(2, 2)])
    interface: Any = SimpleNamespace(policy=policy)
    with differentiable_recurrence(interface):
        assert th.backends.cudnn.enabled is cudnn
    assert th.backends.cudnn.enabled is True


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_an_update_is_that_of_torch(rnn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> th.Tensor:
        kwargs = {"rnn_type": rnn_type, "lstm_hidden_size": 8, "net_arch": [8]}
        env = RandomEnv(OBSERVATIONS["dict"])
        model = RecurrentTRPO("MultiInputLstmPolicy", env, n_steps=64, batch_size=32, seed=0, policy_kwargs=kwargs)
        before = flatten(list(model.policy.parameters())).clone()
        model.learn(64)
        assert vars(model.interface)["_run_sequences"] is run_sequences  # as before the update
        return flatten(list(model.policy.parameters())) - before

    by_hand = step()
    n_by_torch: list[int] = []

    def torch_only(rnn: nn.RNNBase, features: th.Tensor, lengths: th.Tensor, memory: Memory) -> tuple[th.Tensor, Memory]:
        n_by_torch.append(len(features))
        return run_sequences(rnn, features, lengths, memory)

    monkeypatch.setattr(recurrence, "run_by_hand", torch_only)
    by_torch = step()
    assert len(n_by_torch) > 10
    assert th.linalg.norm(by_torch) > 0.01
    assert th.linalg.norm(by_hand - by_torch) < 1e-3 * th.linalg.norm(by_torch)

"""Memory before every window, and known answers of the Fisher matrix through time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_trpo import MlpLstmPolicy
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.windows import in_windows
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import DoubleFlatten, torch_distributions
from tests.recurrent_helpers import KINDS, Adding, make_env, make_model, make_policy, make_windows


def means(interface: RecurrentInterface, states: States) -> th.Tensor:
    return torch_distributions(interface.distribution(states))[0].mean


def adding_policy(weight: float) -> RecurrentInterface:
    """Unit Gaussians around h_t = w h_{t-1} + x_t."""
    space = spaces.Box(-10.0, 10.0, (1,), dtype=np.float32)
    options: dict[str, Any] = {"lstm_hidden_size": 1, "net_arch": [], "rnn_type": "gru", "enable_critic_lstm": False}
    policy: Any = MlpLstmPolicy(space, space, lambda _: 1e-3, features_extractor_class=DoubleFlatten, **options).double()
    policy.lstm_actor = Adding(weight).double()
    policy.requires_grad_(False)
    with th.no_grad():
        policy.action_net.weight.fill_(1.0)
        policy.action_net.bias.zero_()
    policy.lstm_actor.weight_hh_l0.requires_grad_(True)
    policy.set_training_mode(False)
    return RecurrentInterface(policy)


@pytest.mark.parametrize(
    ("inputs", "starts", "bptt_length", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [1, 0, 0, 0], None, 0.640625),  # J = (0, 1, 1, 0.75)
        ([1.0, 0.0, 0.0, 0.0], [1, 0, 0, 0], 4, 0.640625),
        ([1.0, 0.0, 0.0, 0.0], [1, 0, 0, 0], 2, 0.375),  # J = (0, 1, 0.5, 0.5)
        ([1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0], None, 0.5),  # J = (0, 1, 0, 1)
        ([1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0], 2, 0.5),
    ],
)
@pytest.mark.parametrize("chunk_size", [1, 100])
def test_fisher_matrix_worked_out_by_hand(
    inputs: list[float], starts: list[int], bptt_length: int | None, expected: float, chunk_size: int
) -> None:
    interface = adding_policy(0.5)
    x, zeros = th.tensor(inputs, dtype=th.float64)[:, None], th.zeros(4, dtype=th.float64)
    rollout = Batch(States(x, episode_starts=th.tensor(starts)), x, zeros, zeros, zeros)
    batch = in_windows(rollout, 1, (th.full((1, 1, 1), 9.0, dtype=th.float64),)).checked()
    weight = interface.policy.lstm_actor.weight_hh_l0
    assert isinstance(weight, nn.Parameter)
    surrogate = Surrogate(AutogradActor(interface), batch, 0.0, chunk_size)
    derivatives = batch if bptt_length is None else interface.truncate(batch, bptt_length, chunk_size).checked()
    product = FisherVectorProduct(AutogradActor(interface), [weight], derivatives, chunk_size)
    assert product(th.ones(1, dtype=th.float64)).item() == pytest.approx(expected, rel=1e-12)
    assert surrogate.at_old.kl == 0.0
    with th.no_grad():
        weight.add_(1e-4)
    whole = 0.5 if starts[2] else 0.640625  # trials see the policy that acts, whatever gradients see
    assert surrogate.evaluate().kl == pytest.approx(0.5 * whole * 1e-8, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [1, 2, 3, 100])
def test_pieces_begin_with_the_memory_that_the_policy_has_there(kind: str, longest: int) -> None:
    policy = make_policy(**KINDS[kind])
    interface, batch = RecurrentInterface(policy), make_windows(policy, (1, 3, 2, 7))
    pieces = interface.truncate(batch, longest, chunk_size=4).checked()
    assert max(pieces.states.unit_lengths.tolist()) == min(longest, 7)
    whole, cut = means(interface, batch.states), means(interface, pieces.states)
    th.testing.assert_close(whole, cut, rtol=1e-12, atol=1e-12)
    th.testing.assert_close(interface.values(batch.states), interface.values(pieces.states), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_company_of_windows_change_nothing(kind: str) -> None:
    policy = make_policy(**KINDS[kind])
    interface, batch = RecurrentInterface(policy), make_windows(policy)
    mean, values = means(interface, batch.states), interface.values(batch.states)
    order = th.tensor([2, 0, 3, 1])
    shuffled, rows = batch.take(order), batch.states.rows_of(order)
    assert isinstance(rows, th.Tensor)
    th.testing.assert_close(means(interface, shuffled.states), mean[rows])
    th.testing.assert_close(interface.values(shuffled.states), values[rows])
    for unit in range(4):
        alone, rows = batch.take(th.tensor([unit])), batch.states.rows_of(th.tensor([unit]))
        assert isinstance(rows, th.Tensor)
        th.testing.assert_close(means(interface, alone.states), mean[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_acting_step_by_step_gives_the_windows(kind: str) -> None:
    policy = make_policy(**KINDS[kind])
    interface, batch = RecurrentInterface(policy), make_windows(policy, (5, 5))
    mean, values = means(interface, batch.states), interface.values(batch.states)
    assert isinstance(batch.states.observations, th.Tensor)
    assert batch.states.memory is not None
    interface.memory = batch.states.memory
    for step in range(5):
        rows = th.tensor([step, 5 + step])
        states = States(batch.states.observations[rows], memory=interface.memory_before(th.zeros(2, dtype=th.bool)))
        th.testing.assert_close(means(interface, states), mean[rows])
        acted = interface.act(states)
        th.testing.assert_close(acted.values, values[rows])


def test_memory_begins_anew_exactly_where_an_episode_does() -> None:
    interface = RecurrentInterface(make_policy())
    interface.memory = tuple(th.full((3, 1, 5), float(i), dtype=th.float64) for i in range(1, 5))
    before = interface.memory_before(th.tensor([False, True, False]))
    assert [part[:, 0, 0].tolist() for part in before] == [[float(i), 0.0, float(i)] for i in range(1, 5)]
    assert not any(part.any() for part in interface.memory_before(th.zeros(2, dtype=th.bool)))  # other environments


def test_the_memory_outlives_the_replacement_of_a_policy() -> None:
    model = make_model(make_env(2)).learn(48)
    interface = model.interface
    assert isinstance(interface, RecurrentInterface)
    model.policy = make_model(make_env(2)).policy
    other = model.interface
    assert isinstance(other, RecurrentInterface)
    assert other is not interface
    assert all(map(th.equal, other.memory, interface.memory))
    model.policy = make_model(make_env(2), policy_kwargs={"lstm_hidden_size": 3}).policy
    fresh = model.interface
    assert isinstance(fresh, RecurrentInterface)
    assert fresh.memory == ()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("method", ["visit", "act"])
def test_a_shared_extractor_runs_once(shared: bool, method: str) -> None:
    policy = make_policy(share_features_extractor=shared)
    interface, batch = RecurrentInterface(policy), make_windows(policy)
    calls: list[nn.Module] = []
    for module in policy.modules():
        module.register_forward_hook(lambda module, args, output: calls.append(module))
    if method == "visit":
        interface.visit(batch.states, batch.actions)
    else:
        interface.act(batch.states)
    extractors = {policy.pi_features_extractor, policy.vf_features_extractor}
    assert len([call for call in calls if call in extractors]) == len(extractors) == (1 if shared else 2)
    assert {policy.lstm_actor, policy.lstm_critic} <= set(calls)


def test_masks_of_states_are_kept() -> None:
    policy = make_policy()
    batch = make_windows(policy)
    batch = replace(batch, states=replace(batch.states, action_masks=th.ones(len(batch), 2).bool()))
    pieces = RecurrentInterface(policy).truncate(batch, 2, 100)
    assert pieces.states.action_masks is not None

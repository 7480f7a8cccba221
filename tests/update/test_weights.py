"""A weight of 2 counts a transition twice, a weight of 0 leaves it out, in every mean of the update."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch as th

from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.batch.advantages import carry_signal, effective_advantages
from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.update.critic import critic_parameters, fit_critic
from sb3_trpo.update.critic_epochs import FitData, make_epoch
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import ACTORS, actor_of, actor_parameters, batch_of, collect, make_batch, make_policy, perturb, reached
from tests.toy_envs import ACTIONS, RandomEnv

WEIGHTS = [1, 0, 2, 1, 3, 0, 1]


def weighted_and_repeated(batch: Batch) -> tuple[Batch, Batch]:
    """A batch with weights, and one in which each transition occurs as often as its weight says."""
    repeats = th.tensor([i for i, weight in enumerate(WEIGHTS) for _ in range(weight)])
    weights = th.tensor(WEIGHTS, dtype=batch.advantages.dtype)
    return replace(batch, weights=weights), batch.take(repeats)


@pytest.mark.parametrize("chunk_size", [3, 100])
@pytest.mark.parametrize("actor", ACTORS)
def test_surrogate_gradient_and_kl(actor: str, chunk_size: int) -> None:
    policy = make_policy(**ACTORS[actor])
    parameters = actor_parameters(policy)
    batches = weighted_and_repeated(make_batch(policy))
    surrogates = [Surrogate(actor_of(policy), batch, 0.1, chunk_size, parameters) for batch in batches]
    th.testing.assert_close(surrogates[0].gradient_at_old, surrogates[1].gradient_at_old)
    th.testing.assert_close(surrogates[0].gradient(parameters), surrogates[1].gradient(parameters))
    perturb(policy.parameters(), 0.1)
    ours, expected = (surrogate.evaluate() for surrogate in surrogates)
    assert ours.surrogate == pytest.approx(expected.surrogate)
    assert ours.kl == pytest.approx(expected.kl)
    assert surrogates[0].entropy == pytest.approx(surrogates[1].entropy)


@pytest.mark.parametrize("chunk_size", [3, 100])
@pytest.mark.parametrize("actor", ACTORS)
def test_fisher_products(actor: str, chunk_size: int) -> None:
    policy = make_policy(**ACTORS[actor])
    parameters = actor_parameters(policy)
    vector = th.randn(sum(p.numel() for p in parameters), dtype=th.float64)
    batches = weighted_and_repeated(make_batch(policy))
    products = [FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size)(vector) for batch in batches]
    th.testing.assert_close(*products)


def collected(actions: str) -> tuple[TRPO, Batch]:
    model = TRPO("MlpPolicy", RandomEnv(action_space=ACTIONS[actions]), n_steps=7, batch_size=7, seed=0)
    return model, batch_of(collect(model))


@pytest.mark.parametrize("actions", ACTIONS)
def test_by_hand(actions: str) -> None:
    model, batch = collected(actions)
    parameters = reached(model.policy, batch)
    vector = th.randn(sum(p.numel() for p in parameters))
    results = []
    for part in weighted_and_repeated(batch):
        network = actor_of(model.policy)
        assert type(network).__name__ == "HandActor"
        surrogate = Surrogate(network, part, 0.1, 4, parameters)
        results.append((surrogate.gradient_at_old, FisherVectorProduct(network, parameters, part, 4)(vector)))
    for ours, expected in zip(*results, strict=True):
        th.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by_hand", [True, False])
def test_critic(by_hand: bool) -> None:
    after = []
    for i in range(2):
        model, batch = collected("box")
        batch = weighted_and_repeated(batch)[i]
        parameters = critic_parameters(model.policy, reached(model.policy, batch))
        plain: Any = PlainPolicy.of(model.policy) if by_hand else Reason("a test")
        data = FitData(model.rollout_buffer, batch, len(batch), 100)
        epoch = make_epoch(PolicyInterface(model.policy), plain, parameters, data)
        losses = fit_critic(model.policy, parameters, epoch, 3, None)
        after.append((th.tensor(losses), th.nn.utils.parameters_to_vector(parameters)))
    th.testing.assert_close(after[0], after[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_advantages(normalize: bool) -> None:
    advantages, returns = th.tensor([[1.0, 50.0, -2.0, 0.5, 3.0, -80.0, 0.25], [0.0] * 7])
    weights = th.tensor(WEIGHTS, dtype=th.float32)
    repeats = th.tensor([i for i, weight in enumerate(WEIGHTS) for _ in range(weight)])
    ours = effective_advantages(advantages, returns, normalize, weights)
    expected = effective_advantages(advantages[repeats], returns[repeats], normalize)
    th.testing.assert_close(ours[repeats], expected)


def test_advantages_without_weight_carry_no_signal() -> None:
    advantages, returns = th.tensor([[1.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
    assert carry_signal(advantages, returns)
    assert not carry_signal(advantages, returns, th.tensor([1.0, 0.0, 1.0]))
    assert not carry_signal(advantages, returns, th.zeros(3))
    assert carry_signal(advantages, returns, th.tensor([0.0, 1.0, 0.0]))  # one advantage: its size decides


@pytest.mark.parametrize("total", [0.0, 0.5, 1.0])
def test_advantages_whose_weights_leave_no_spread_are_zero(total: float) -> None:
    advantages, returns = th.tensor([[1.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
    weights = th.tensor([total, 0.0, 0.0])
    assert effective_advantages(advantages, returns, True, weights).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_minibatch_without_weight_takes_no_step(by_hand: bool) -> None:
    model, batch = collected("box")
    batch = replace(batch, weights=th.zeros(len(batch)))
    parameters = critic_parameters(model.policy, reached(model.policy, batch))
    before = th.nn.utils.parameters_to_vector(parameters).clone()
    plain: Any = PlainPolicy.of(model.policy) if by_hand else Reason("a test")
    epoch = make_epoch(PolicyInterface(model.policy), plain, parameters, FitData(model.rollout_buffer, batch, 3, 100))
    losses = fit_critic(model.policy, parameters, epoch, 2, None)
    assert len(losses) == 6
    assert all(math.isnan(loss) for loss in losses)
    assert th.equal(th.nn.utils.parameters_to_vector(parameters), before)

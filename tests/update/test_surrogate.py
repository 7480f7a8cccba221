"""The surrogate, its gradient and the mean KL, against formulas written out in float64 and finite differences."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import (
    ACTORS,
    Experts,
    StudentT,
    actor_of,
    actor_parameters,
    generator_states,
    jacobian,
    make_batch,
    make_policy,
    perturb,
    torch_distributions,
    torch_kl,
)

ENT_COEFS = [0.0, 0.5]


def surrogate_by_hand(policy: ActorCriticPolicy, batch: Batch, ent_coef: float) -> th.Tensor:
    """The formula, through SB3's ``evaluate_actions``; without a closed form the entropy is the estimate of its mean."""
    _, log_prob, entropy = policy.evaluate_actions(batch.states.observations, batch.actions)
    ratio = (log_prob - batch.old_log_prob).exp()
    if entropy is None:
        entropy = -ratio * log_prob
    return (ratio * batch.advantages).mean() + ent_coef * entropy.mean()


def mean_kl_by_hand(old: Any, policy: ActorCriticPolicy, batch: Batch) -> float:
    old_parts, old_log_prob = old
    with th.no_grad():
        new = policy.get_distribution(batch.states.observations)
        if isinstance(old_parts[0], th.distributions.StudentT):
            log_ratio = new.log_prob(batch.actions) - old_log_prob
            return float((log_ratio.exp() - 1.0 - log_ratio).mean())
        return float(torch_kl(old_parts, torch_distributions(new)).mean())


def flat_gradient(value: th.Tensor, policy: ActorCriticPolicy) -> th.Tensor:
    return jacobian(value, actor_parameters(policy))[0].detach()


@pytest.mark.parametrize("ent_coef", ENT_COEFS)
@pytest.mark.parametrize("actor", ACTORS)
def test_value_and_kl_are_the_formulas_away_from_the_old_policy(actor: str, ent_coef: float) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    with th.no_grad():
        distribution = policy.get_distribution(batch.states.observations)
        old = torch_distributions(distribution), distribution.log_prob(batch.actions)
    surrogate = Surrogate(actor_of(policy), batch, ent_coef, chunk_size=100)
    perturb(policy.parameters(), 0.2)
    trial = surrogate.evaluate()
    assert trial.surrogate == pytest.approx(surrogate_by_hand(policy, batch, ent_coef).item(), rel=1e-12)
    assert trial.kl == pytest.approx(mean_kl_by_hand(old, policy, batch), rel=1e-10)
    assert trial.kl > 1e-3


@pytest.mark.parametrize("actor", ACTORS)
def test_at_the_old_policy_kl_is_zero_and_the_value_the_mean_advantage(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    trial = Surrogate(actor_of(policy), batch, 0.0, 100).evaluate()
    assert trial.kl == 0.0
    assert trial.surrogate == pytest.approx(batch.advantages.mean().item(), rel=1e-12)


def test_evaluation_ends_where_the_bound_is_broken_for_good() -> None:
    policy = make_policy(**ACTORS["gaussian"])
    batch = make_batch(policy)
    network = actor_of(policy)
    surrogate = Surrogate(network, batch, 0.0, chunk_size=1)
    perturb(policy.parameters(), 0.2)
    whole = surrogate.evaluate()
    assert surrogate.evaluate(max_kl=whole.kl) == whole
    trial = surrogate.evaluate(max_kl=0.5 * whole.kl)
    assert math.isnan(trial.surrogate)
    assert 0.5 * whole.kl < trial.kl < whole.kl
    assert surrogate.evaluate() == whole


@pytest.mark.parametrize("ent_coef", ENT_COEFS)
@pytest.mark.parametrize("actor", ACTORS)
def test_gradient_is_that_of_finite_differences(actor: str, ent_coef: float) -> None:
    # gSDE lets no gradient of its noise into the hidden layers, although they change it: there, none
    policy = make_policy(**ACTORS[actor], net_arch=[] if "gsde" in actor else [4])
    batch = make_batch(policy)
    surrogate = Surrogate(actor_of(policy), batch, ent_coef, 100)
    perturb(policy.parameters(), 0.1)
    gradient = surrogate.gradient(actor_parameters(policy))
    differences = []
    width = 1e-5
    with th.no_grad():
        for parameter in actor_parameters(policy):
            for position in range(parameter.numel()):
                element = parameter.view(-1)[position]
                element += width
                above = surrogate_by_hand(policy, batch, ent_coef)
                element -= 2.0 * width
                below = surrogate_by_hand(policy, batch, ent_coef)
                element += width
                differences.append((above - below) / (2.0 * width))
    th.testing.assert_close(gradient, th.stack(differences), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("actor", ACTORS)
def test_gradient_at_the_old_policy_is_the_policy_gradient(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    gradient = Surrogate(actor_of(policy), batch, 0.0, 100).gradient(actor_parameters(policy))
    log_prob = policy.evaluate_actions(batch.states.observations, batch.actions)[1]
    th.testing.assert_close(gradient, flat_gradient((log_prob * batch.advantages).mean(), policy), rtol=1e-9, atol=1e-12)


def test_estimated_entropy_has_the_gradient_of_the_entropy() -> None:
    # a squashed Gaussian of one state: mean and std are 2 + 2 parameters, the states are samples of its action
    policy = make_policy(**ACTORS["squashed_gsde"])
    n_samples = 20_000
    observations = th.ones(1, 3).expand(n_samples, 3)
    th.manual_seed(0)
    with th.no_grad():
        distribution = policy.get_distribution(observations)
        gaussian = torch_distributions(distribution)[0]
        actions = th.tanh(gaussian.sample())
        log_prob = distribution.log_prob(actions)
    batch = Batch(States(observations), actions, log_prob, th.zeros_like(log_prob), th.zeros_like(log_prob))
    estimate = Surrogate(actor_of(policy), batch, 1.0, n_samples).gradient([policy.log_std])

    # the entropy of tanh(x) is that of x plus the mean of log(1 - tanh²(x)), by reparametrisation
    noise = th.randn(n_samples, 2, dtype=th.float64)
    live = torch_distributions(policy.get_distribution(observations))[0]
    assert isinstance(live, th.distributions.Normal)
    correction = th.log1p(-th.tanh(live.loc + live.scale * noise).square())
    entropy = (live.scale.log() + correction).sum(dim=1).mean()  # and a constant
    exact = jacobian(entropy, [policy.log_std])[0].detach()
    assert th.cosine_similarity(estimate, exact, dim=0) > 0.99
    assert estimate.norm().item() == pytest.approx(exact.norm().item(), rel=0.1)


def test_an_entropy_that_is_not_implemented_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(**ACTORS["student_t"])
    batch = make_batch(policy)
    estimated = Surrogate(AutogradActor(PolicyInterface(policy)), batch, 0.3, 7).entropy

    def missing(self: StudentT) -> None:
        raise NotImplementedError

    monkeypatch.setattr(StudentT, "entropy", missing)
    assert Surrogate(AutogradActor(PolicyInterface(policy)), batch, 0.3, 7).entropy == estimated


@pytest.mark.parametrize("actor", ["gaussian", "squashed_gsde", "categorical"])
def test_entropy_is_that_of_the_last_evaluation(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    surrogate = Surrogate(actor_of(policy), batch, 0.0, 3)
    for _ in range(2):
        surrogate.evaluate()
        with_bonus, without = (surrogate_by_hand(policy, batch, ent_coef).item() for ent_coef in (1.0, 0.0))
        assert surrogate.entropy == pytest.approx(with_bonus - without, rel=1e-9)
        perturb(policy.parameters(), 0.2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(actor=st.sampled_from(list(ACTORS)), n_states=st.integers(1, 7), chunk_size=st.integers(1, 8))
def test_chunks_change_nothing(actor: str, n_states: int, chunk_size: int) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy, n_states)
    whole, chunked = (
        Surrogate(actor_of(policy), batch, 0.3, n_states),
        Surrogate(actor_of(policy), batch, 0.3, chunk_size),
    )
    perturb(policy.parameters(), 0.1)
    assert chunked.evaluate() == pytest.approx(whole.evaluate(), rel=1e-10, abs=1e-14)
    parameters = actor_parameters(policy)
    gradients = [surrogate.gradient(parameters) for surrogate in (chunked, whole)]
    th.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_gradient_of_part_of_the_batch_is_the_mean_over_that_part() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    positions = th.arange(0, len(batch), 2)
    part = batch.take(positions)
    gradient = Surrogate(actor_of(policy), batch, 0.2, 3).gradient(actor_parameters(policy), positions)
    th.testing.assert_close(gradient, flat_gradient(surrogate_by_hand(policy, part, 0.2), policy), rtol=1e-9, atol=1e-12)


class Counter(nn.Module):
    """Passes its input on and counts the rows that go forward and the gradients that come back."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_rows = self.backward_rows = 0

    def forward(self, x: th.Tensor) -> th.Tensor:
        self.forward_rows += len(x)
        if x.requires_grad:
            x.register_hook(self._count)  # type: ignore[no-untyped-call]
        return x

    def _count(self, gradient: th.Tensor) -> None:
        self.backward_rows += len(gradient)


@contextmanager
def counted(policy: ActorCriticPolicy) -> Iterator[Counter]:
    head, counter = policy.action_net, Counter()
    policy.action_net = nn.Sequential(counter, head)
    yield counter
    policy.action_net = head


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_gradient_is_one_forward_and_one_backward_pass_over_the_batch(chunk_size: int) -> None:
    policy = make_policy()
    batch = make_batch(policy)
    parameters = actor_parameters(policy)
    surrogate = Surrogate(actor_of(policy), batch, 0.1, chunk_size)
    with counted(policy) as counter:
        surrogate.gradient(parameters)
        assert (counter.forward_rows, counter.backward_rows) == (len(batch), len(batch))


@pytest.mark.parametrize("ent_coef", ENT_COEFS)
@pytest.mark.parametrize("actor", ACTORS)
def test_the_first_pass_brings_the_gradient_along(actor: str, ent_coef: float) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    parameters = actor_parameters(policy)
    alone = Surrogate(actor_of(policy), batch, ent_coef, 3)
    assert alone.gradient_at_old is None
    together = Surrogate(actor_of(policy), batch, ent_coef, 3, parameters)
    assert together.gradient_at_old is not None
    th.testing.assert_close(together.gradient_at_old, alone.gradient(parameters), rtol=1e-12, atol=1e-14)
    assert together.at_old == pytest.approx(alone.at_old, rel=1e-12, abs=1e-14)
    assert together.entropy == pytest.approx(alone.entropy, rel=1e-12)
    perturb(policy.parameters(), 0.1)
    assert together.evaluate() == pytest.approx(alone.evaluate(), rel=1e-12)
    assert together.evaluate().kl > 1e-4


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_value_and_gradient_at_the_old_policy_are_one_pass(chunk_size: int) -> None:
    policy = make_policy()
    batch = make_batch(policy)
    parameters = actor_parameters(policy)
    with counted(policy) as counter:
        Surrogate(actor_of(policy), batch, 0.1, chunk_size, parameters)
        assert (counter.forward_rows, counter.backward_rows) == (len(batch), len(batch))


def test_evaluation_is_one_forward_pass_and_no_backward_pass() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    surrogate = Surrogate(actor_of(policy), batch, 0.1, 3)
    with counted(policy) as counter:
        surrogate.evaluate()
        assert (counter.forward_rows, counter.backward_rows) == (len(batch), 0)


def test_states_that_reach_no_trainable_parameter_add_nothing() -> None:
    policy = make_policy(features_extractor_class=Experts)
    trained = list(policy.features_extractor.positive.parameters())  # type: ignore[union-attr]
    policy.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    batch = make_batch(policy)
    assert isinstance(batch.states.observations, th.Tensor)
    batch.states.observations[:, 0] = th.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    network = actor_of(policy)
    together, alone = (Surrogate(network, batch, 0.1, chunk_size).gradient(trained) for chunk_size in (7, 1))
    assert together.any()
    th.testing.assert_close(alone, together)
    vector = th.randn(together.shape, dtype=th.float64)
    th.testing.assert_close(*(FisherVectorProduct(network, trained, batch, chunk_size)(vector) for chunk_size in (1, 7)))


def test_gradient_is_zero_for_parameters_that_play_no_part_and_leaves_grad_alone() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    gradient = Surrogate(actor_of(policy), batch, 0.0, 100).gradient([*policy.value_net.parameters(), policy.log_std])
    assert gradient.shape == (7,)
    assert not gradient[:5].any()
    assert gradient[5:].all()
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_sums_keep_float64_digits_for_a_float32_policy() -> None:
    # ratios are 1, so L is the mean advantage; 2²⁵ + 1 is not a float32
    policy = make_policy()
    batch = make_batch(policy, 3)
    advantages = th.tensor([2.0**25, 1.0, -(2.0**25)], dtype=th.float32)
    trial = Surrogate(actor_of(policy), batch.with_advantages(advantages), 0.0, 100).evaluate()
    assert trial.surrogate == pytest.approx(1.0 / 3.0)


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_policy_that_is_not_finite_gives_numbers_that_are_not_and_no_exception(actor: str, value: float) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    surrogate = Surrogate(actor_of(policy), batch, 0.0, 100)
    assert isinstance(policy.action_net, nn.Linear)
    with th.no_grad():
        policy.action_net.bias[0] = value
    trial = surrogate.evaluate()
    assert not (math.isfinite(trial.surrogate) and math.isfinite(trial.kl))
    assert not th.isfinite(surrogate.gradient(actor_parameters(policy))).all()
    assert th.distributions.Distribution._validate_args  # the check is back on for everybody else


class Constant(nn.Module):
    """A head that ignores the state: its output is a view of its parameter."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.output = nn.Parameter(th.zeros(size, dtype=th.float64))

    def forward(self, latent: th.Tensor) -> th.Tensor:
        return self.output.expand(len(latent), -1)


@pytest.mark.parametrize("actor", ["gaussian", "bernoulli"])
def test_the_old_policy_stays_put_when_its_parameters_are_views_of_the_weights(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    policy.action_net = head = Constant(2 if actor == "gaussian" else 3)
    batch = make_batch(policy)
    surrogate = Surrogate(actor_of(policy), batch, 0.0, 100)
    with th.no_grad():
        head.output.add_(1.0)
    assert surrogate.evaluate().kl > 0.1


def test_nothing_is_drawn_from_a_global_generator() -> None:
    policy = make_policy(use_sde=True)
    batch = make_batch(policy)
    before = generator_states()
    surrogate = Surrogate(actor_of(policy), batch, 0.1, 3)
    surrogate.evaluate()
    surrogate.gradient(actor_parameters(policy))
    assert generator_states() == before

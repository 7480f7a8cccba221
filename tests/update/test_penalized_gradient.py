"""The gradient of L - λ D, and the step rules on policies with known answers, in float64."""

from dataclasses import replace
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution, Distribution

from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.subsets import Subsets
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.kl_penalty import KLPenaltySettings, kl_penalty_step
from sb3_trpo.step.natural_gradient import NaturalGradientSettings, natural_gradient_step
from sb3_trpo.step.report import UnboundedReport
from sb3_trpo.update.policy_problem import PolicyProblem
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import ACTORS, actor_of, actor_parameters, make_batch, make_policy, perturb

KL_COEF = 3.0
WEIGHTS = [1, 0, 2, 1, 3, 0, 1]


@pytest.mark.parametrize("actor", ACTORS)
def test_it_matches_finite_differences(actor: str) -> None:
    # gSDE's noise depends on the hidden layers without a gradient, which finite differences would notice: so it has none
    policy = make_policy(**ACTORS[actor], net_arch=[] if "gsde" in actor else [4])
    parameters = actor_parameters(policy)
    surrogate = Surrogate(actor_of(policy), make_batch(policy), 0.5, chunk_size=3)
    perturb(policy.parameters(), 0.1)
    here, width, differences = flatten(parameters), 1e-5, []
    for position in range(len(here)):
        ends = []
        for sign in (1.0, -1.0):
            shifted = here.clone()
            shifted[position] += sign * width
            assign(parameters, shifted)
            trial = surrogate.evaluate()
            ends.append(trial.surrogate - KL_COEF * trial.kl)
        differences.append((ends[0] - ends[1]) / (2.0 * width))
    assign(parameters, here)
    gradient = surrogate.penalized_gradient(parameters, KL_COEF)
    th.testing.assert_close(gradient, here.new_tensor(differences), rtol=1e-5, atol=1e-7)
    assert not th.allclose(gradient, surrogate.gradient(parameters), rtol=1e-2)


@pytest.mark.parametrize("chunk_size", [2, 100])
def test_a_subset_is_a_batch_of_its_units(chunk_size: int) -> None:
    policy = make_policy()
    parameters, batch, units = actor_parameters(policy), make_batch(policy), th.tensor([5, 0, 3])
    whole, part = (Surrogate(actor_of(policy), data, 0.1, chunk_size) for data in (batch, batch.take(units)))
    perturb(policy.parameters(), 0.1)
    expected = part.penalized_gradient(parameters, KL_COEF)
    th.testing.assert_close(whole.penalized_gradient(parameters, KL_COEF, units), expected)


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_weights_count_transitions(chunk_size: int) -> None:
    policy = make_policy()
    parameters, batch = actor_parameters(policy), make_batch(policy, len(WEIGHTS))
    weighted = replace(batch, weights=th.tensor(WEIGHTS, dtype=batch.advantages.dtype))
    repeated = batch.take(th.tensor([i for i, weight in enumerate(WEIGHTS) for _ in range(weight)]))
    surrogates = [Surrogate(actor_of(policy), data, 0.1, chunk_size) for data in (weighted, repeated)]
    perturb(policy.parameters(), 0.1)
    th.testing.assert_close(*(surrogate.penalized_gradient(parameters, KL_COEF) for surrogate in surrogates))


class Doubled:
    """Coordinates of half the parameters' unit."""

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        return 2.0 * step

    def pull_back(self, gradient: th.Tensor) -> th.Tensor:
        return 2.0 * gradient


def test_at_the_old_policy_it_is_the_gradient_in_the_problems_coordinates() -> None:
    policy = make_policy()
    parameters, batch = actor_parameters(policy), make_batch(policy)
    coordinates: Any = Doubled()
    subsets = Subsets(th.tensor([0, 2, 3]), None, None)
    problem = PolicyProblem(actor_of(policy), parameters, batch, 0.1, 100, subsets, coordinates=coordinates)
    plain = PolicyProblem(actor_of(policy), parameters, batch, 0.1, 100, subsets)
    th.testing.assert_close(problem.penalized_gradient(KL_COEF), problem.gradient())
    perturb(policy.parameters(), 0.1)
    th.testing.assert_close(problem.penalized_gradient(KL_COEF), 2.0 * plain.penalized_gradient(KL_COEF))


class Model(PolicyInterface):
    """A distribution that a few numbers describe."""

    def __init__(self, *values: float) -> None:
        self.values_of = th.nn.Parameter(th.tensor(values, dtype=th.float64))


class Mean(Model):
    def distribution(self, states: States) -> Distribution:
        assert isinstance(states.observations, th.Tensor)
        mean = self.values_of.expand(len(states.observations), 1)
        return DiagGaussianDistribution(1).proba_distribution(mean, th.zeros_like(mean))


class Logits(Model):
    def distribution(self, states: States) -> Distribution:
        assert isinstance(states.observations, th.Tensor)
        n_actions = len(self.values_of)
        return CategoricalDistribution(n_actions).proba_distribution(
            self.values_of.expand(len(states.observations), n_actions)
        )


def posed(model: Model, actions: list[float], advantages: list[float], weights: list[float]) -> PolicyProblem:
    observations = th.zeros(len(actions), 1, dtype=th.float64)
    states, numbers = States(observations), th.tensor([actions, advantages, weights], dtype=th.float64)
    rows = numbers[0][:, None] if isinstance(model, Mean) else numbers[0]
    with th.no_grad():
        log_prob = model.distribution(states).log_prob(rows)
    batch = Batch(states, rows, log_prob, numbers[1], numbers[1], weights=numbers[2])
    return PolicyProblem(AutogradActor(model), [model.values_of], batch, 0.0, 100)


EXACT: dict[str, Any] = {"damping": 0.0, "cg_max_steps": 50, "cg_tol": 1e-14}
SEARCH: dict[str, Any] = {"shrinking_factor": 0.5, "max_iter": 1, "accept_ratio": 0.0}


def test_the_mean_of_a_gaussian() -> None:
    model = Mean(0.0)
    problem = posed(model, [1.0], [0.5], [1.0])
    assert problem.gradient().tolist() == [pytest.approx(0.5)]
    report = natural_gradient_step(problem, NaturalGradientSettings(0.02, **EXACT))
    assert model.values_of.item() == pytest.approx(0.2, abs=1e-12)
    assert report.kl == pytest.approx(0.02, abs=1e-12)

    model = Mean(0.0)
    settings = KLPenaltySettings(0.02, **EXACT, **SEARCH, kl_coef=None, n_steps=1, adaptive=False)
    report = kl_penalty_step(posed(model, [1.0], [0.5], [1.0]), settings)
    assert isinstance(report, UnboundedReport)
    assert report.kl_coef == pytest.approx(2.5, abs=1e-12)
    assert model.values_of.item() == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_a_bandit_moves_by_the_difference_of_its_advantages(logit: float) -> None:
    model = Logits(0.0, logit)
    before = model.values_of.detach().clone()
    problem = posed(model, [0.0, 1.0], [0.7, -0.5], before.softmax(dim=0).tolist())
    plain = problem.gradient()  # small where an action is rare
    p = before.softmax(dim=0)[0].item()
    assert (plain[0] - plain[1]).item() == pytest.approx(2.0 * p * (1.0 - p) * 1.2)
    assert natural_gradient_step(problem, NaturalGradientSettings(0.02, **EXACT, step_size=0.1)).accepted
    moved = model.values_of.detach() - before
    assert (moved[0] - moved[1]).item() == pytest.approx(0.1 * 1.2)


class Scaled(PolicyInterface):
    """A Gaussian around (W diag(s)) x for observations x: s reparameterises the layer W."""

    def __init__(self, weight: th.Tensor, scale: th.Tensor) -> None:
        self.weight, self.scale = th.nn.Parameter(weight / scale), scale

    def matrix(self) -> th.Tensor:
        return (self.weight * self.scale).detach()

    def distribution(self, states: States) -> Distribution:
        assert isinstance(states.observations, th.Tensor)
        mean = states.observations @ (self.weight * self.scale).T
        return DiagGaussianDistribution(2).proba_distribution(mean, th.zeros_like(mean))


@pytest.mark.parametrize(("cg_max_steps", "damping", "invariant"), [(50, 0.0, True), (50, 1.0, False), (1, 0.0, False)])
def test_the_natural_step_does_not_depend_on_the_parameters_of_a_layer(
    cg_max_steps: int, damping: float, invariant: bool
) -> None:
    generator = th.Generator().manual_seed(0)
    weight, observations, actions, advantages = (
        th.randn(*shape, generator=generator, dtype=th.float64) for shape in ((2, 3), (40, 3), (40, 2), (40,))
    )
    after = []
    for scale in (th.ones(3, dtype=th.float64), th.tensor([0.1, 1.0, 30.0], dtype=th.float64)):
        model, states = Scaled(weight, scale), States(observations)
        with th.no_grad():
            log_prob = model.distribution(states).log_prob(actions)
        batch = Batch(states, actions, log_prob, advantages, advantages)
        problem = PolicyProblem(AutogradActor(model), [model.weight], batch, 0.0, 100)
        settings = NaturalGradientSettings(0.01, damping, cg_max_steps, 1e-14)
        assert natural_gradient_step(problem, settings).kl == pytest.approx(0.01, rel=0.1)
        after.append(model.matrix())
    assert th.allclose(after[0], after[1], rtol=1e-8) is invariant
    if not invariant:
        assert (after[0] - after[1]).abs().max() > 1e-3

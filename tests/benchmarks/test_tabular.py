"""TRPO's theory holds exactly on tabular problems."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize  # type: ignore[import-untyped]

from benchmarks import tabular
from benchmarks.tabular import Problem, kl, lower_bound, random_problem, solve

PROBLEMS = {
    "chain": tabular.chain(),
    "random": random_problem(),
    "alike": random_problem(n_observations=4, gamma=0.9, seed=2),
}


def random_policy(problem: Problem, seed: int) -> np.ndarray:
    shape = problem.observations.max() + 1, problem.rewards.shape[1]
    policy: np.ndarray = np.random.default_rng(seed).dirichlet(np.ones(shape[1]), shape[0])
    return policy


def mixed(old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    return (1.0 - share) * old + share * new


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_values_are_those_of_a_long_sum(name: str) -> None:
    problem = PROBLEMS[name]
    policy = random_policy(problem, 1)
    in_states = policy[problem.observations]
    states, eta, visits = problem.start, 0.0, np.zeros(len(policy))
    for time in range(600):
        eta += problem.gamma**time * float(states @ (in_states * problem.rewards).sum(axis=1))
        np.add.at(visits, problem.observations, problem.gamma**time * states)
        states = np.einsum("s,sa,sat->t", states, in_states, problem.transitions)
    solution = solve(problem, policy)
    assert solution.eta == pytest.approx(eta)
    np.testing.assert_allclose(solution.visits, visits)
    assert solution.visits.sum() == pytest.approx(1.0 / (1.0 - problem.gamma))
    np.testing.assert_allclose((policy * solution.advantages).sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_return_of_one_policy_in_advantages_of_another(seed: int) -> None:
    """Equation 1 of the paper: η(π̃) = η(π) + Σ ρ_π̃ Σ π̃ A_π."""
    problem = PROBLEMS["random"]  # every state has its own observation
    old, new = random_policy(problem, seed), random_policy(problem, seed + 10)
    before, after = solve(problem, old), solve(problem, new)
    assert after.eta == pytest.approx(before.eta + after.visits @ (new * before.advantages).sum(axis=1))


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_lower_bound_is_one(name: str) -> None:
    problem, nearest = PROBLEMS[name], np.inf
    for seed in range(20):
        old = random_policy(problem, seed)
        assert lower_bound(problem, old, old) == pytest.approx(solve(problem, old).eta)
        for share in (1.0, 0.1, 0.01, 1e-3):
            new = mixed(old, random_policy(problem, seed + 100), share)
            gap = solve(problem, new).eta - lower_bound(problem, old, new)
            assert gap >= -1e-12
            nearest = min(nearest, gap)
    assert nearest < 1e-3


def by_search(problem: Problem, old: np.ndarray, objective: Callable[[np.ndarray], float]) -> float:
    """Maximise over policies with a general optimiser, from the old policy."""

    def policy(logits: np.ndarray) -> np.ndarray:
        exp = np.exp(logits.reshape(old.shape))
        return np.asarray(exp / exp.sum(axis=1, keepdims=True))

    found = minimize(
        lambda logits: -objective(policy(logits)), np.log(old).ravel(), method="Nelder-Mead", options={"maxiter": 4000}
    )
    return -float(found.fun)


def small() -> tuple[Problem, np.ndarray]:
    problem = random_problem(n_states=2, n_observations=2, gamma=0.3, seed=4)
    return problem, random_policy(problem, 0)


def gain(problem: Problem, old: np.ndarray, new: np.ndarray) -> float:
    solution = solve(problem, old)
    return float(solution.visits @ (new * solution.advantages).sum(axis=1))


def test_the_penalised_step_is_the_maximum() -> None:
    problem, old = small()
    ours = lower_bound(problem, old, tabular.maximise_with_penalty(problem, old))
    assert ours > solve(problem, old).eta
    for seed in range(300):
        new = mixed(old, random_policy(problem, seed), 0.1 * np.random.default_rng(seed).uniform())
        assert lower_bound(problem, old, new) <= ours
    assert ours >= by_search(problem, old, lambda new: lower_bound(problem, old, new)) - 1e-9


@pytest.mark.parametrize("rule", [tabular.bounded_everywhere, tabular.bounded_on_average])
def test_the_bounded_steps_are_maxima_that_meet_their_bound(rule: Callable[..., np.ndarray]) -> None:
    problem, old = small()
    visits = solve(problem, old).visits

    def distance(new: np.ndarray) -> float:
        kls = kl(old, new)
        return float(kls.max() if rule is tabular.bounded_everywhere else visits @ kls / visits.sum())

    new = rule(problem, old, 0.05)
    np.testing.assert_allclose(new.sum(axis=1), 1.0)
    assert distance(new) == pytest.approx(0.05)
    ours = gain(problem, old, new)
    best = by_search(problem, old, lambda new: gain(problem, old, new) - 1e3 * max(0.0, distance(new) - 0.05))
    assert best <= ours + 1e-6
    assert best > 0.9 * ours


def test_both_bounds_allow_the_same_where_there_is_one_observation() -> None:
    problem = random_problem(n_observations=1)
    old = random_policy(problem, 0)
    np.testing.assert_allclose(
        tabular.bounded_everywhere(problem, old, 0.02), tabular.bounded_on_average(problem, old, 0.02), rtol=1e-6
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_algorithm_of_the_theory_never_lowers_the_return(name: str) -> None:
    found = tabular.iterate(PROBLEMS[name], tabular.maximise_with_penalty, 4)
    assert found.falls == 0
    assert (np.diff(found.etas) > 0.0).all()
    assert (found.etas[1:] >= found.bounds - 1e-12).all()
    assert (found.bounds > found.etas[:-1]).all()  # each step is guaranteed to improve


def test_a_bound_on_the_mean_may_lower_the_return_where_states_look_alike() -> None:
    found = tabular.iterate(PROBLEMS["alike"], lambda problem, policy: tabular.bounded_on_average(problem, policy, 0.03), 20)
    assert found.falls > 0
    assert found.largest.max() > 0.1  # an observation moves far beyond the mean
    assert (found.bounds < found.etas[:-1]).any()  # and nothing was guaranteed


def test_the_command_draws_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tabular.main(["--out", str(tmp_path / "tabular.png"), "--steps", "1"])
    assert (tmp_path / "tabular.png").stat().st_size > 10_000
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3 * 3

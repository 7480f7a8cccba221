"""KL penalty and dual descent, on problems with known solutions."""

import itertools
import math
from typing import Any

import pytest
import torch as th

from sb3_trpo.step.dual_descent import DualDescentSettings, dual_descent_step, dual_kl_coef_after
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.kl_penalty import KLPenaltySettings, adapted_kl_coef, kl_penalty_step
from sb3_trpo.step.report import Outcome, Trial, UnboundedReport
from sb3_trpo.step.trust_region import TrustRegionSettings, trust_region_step
from tests.helpers import same_bits
from tests.step.problems import INF, NAN, Quadratic, random_spd, random_vector, vector

SEARCH: dict[str, Any] = {"shrinking_factor": 0.5, "max_iter": 10, "accept_ratio": 0.0}
SOLVER: dict[str, Any] = {"max_kl": 0.02, "damping": 0.0, "cg_max_steps": 30, "cg_tol": 1e-13}


def penalty(problem: Quadratic, kl_coef: float | None, **settings: Any) -> UnboundedReport:
    chosen = {**SEARCH, **SOLVER, "n_steps": 1, "adaptive": False, **settings}
    report = kl_penalty_step(problem, KLPenaltySettings(kl_coef=kl_coef, **chosen))
    assert isinstance(report, UnboundedReport)
    return report


def dual(problem: Quadratic, kl_coef: float | None, **settings: Any) -> UnboundedReport:
    chosen = {**SEARCH, **SOLVER, "n_steps": 1, "dual_learning_rate": 10.0, **settings}
    report = dual_descent_step(problem, DualDescentSettings(kl_coef=kl_coef, **chosen))
    assert isinstance(report, UnboundedReport)
    return report


def quadratic(**settings: Any) -> Quadratic:
    return Quadratic(random_vector(6, 1), random_spd(6, 2), **settings)


def gaussian() -> Quadratic:
    return Quadratic(vector(0.5), vector(1.0).diag())


@pytest.mark.parametrize("rule", [penalty, dual])
def test_a_gaussian_mean(rule: Any) -> None:
    problem = gaussian()
    report = rule(problem, None)
    assert report.kl_coef == pytest.approx(2.5)
    assert problem.moved.item() == pytest.approx(0.2)
    assert report.kl == pytest.approx(0.02)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_at_the_dual_coefficient_constraint_and_penalty_coincide(n_steps: int, scale: float) -> None:
    constrained, penalized, ascending = quadratic(), quadratic(scale=scale), quadratic(scale=scale)
    constrained.spoil = lambda trial: trial._replace(kl=trial.kl * (1.0 - 1e-9))  # rounding must not decide
    assert trust_region_step(constrained, TrustRegionSettings(**SEARCH, **SOLVER)).accepted
    report = penalty(penalized, None, n_steps=n_steps)
    dual(ascending, None, n_steps=n_steps)
    inverse = th.linalg.solve(constrained.fisher, constrained.slope)
    assert report.kl_coef == pytest.approx(math.sqrt(th.dot(constrained.slope, inverse).item() / 0.04))
    th.testing.assert_close(penalized.moved, constrained.moved)
    th.testing.assert_close(ascending.moved, constrained.moved)
    assert report.expected_gain == pytest.approx(report.surrogate_gain)


@pytest.mark.parametrize("kl_coef", [0.3, 30.0])
def test_one_step_reaches_the_maximum_of_a_quadratic_objective(kl_coef: float) -> None:
    problem = quadratic()
    report = penalty(problem, kl_coef)
    th.testing.assert_close(problem.moved, th.linalg.solve(problem.fisher, problem.slope) / kl_coef)
    assert report.next_kl_coef == report.kl_coef == kl_coef
    assert report.kl_over_target is (report.kl > 0.02)


def test_further_steps_reach_the_maximum_where_the_surrogate_bends() -> None:
    problem = quadratic(bend=0.5)
    report = penalty(problem, 1.0, n_steps=60)
    matrix = problem.fisher + 0.5 * th.eye(6, dtype=th.float64)
    th.testing.assert_close(problem.moved, th.linalg.solve(matrix, problem.slope), rtol=1e-5, atol=1e-7)
    after = problem.evaluate()
    assert (report.surrogate, report.kl) == (after.surrogate, after.kl)


def test_damping_turns_the_step_and_keeps_its_length_optimal() -> None:
    problem = quadratic()
    report = penalty(problem, 2.0, damping=3.0)
    x = th.linalg.solve(problem.fisher + 3.0 * th.eye(6, dtype=th.float64), problem.slope)
    length = th.dot(problem.slope, x) / (2.0 * th.dot(x, problem.fisher @ x))
    th.testing.assert_close(problem.moved, length * x)
    assert report.accepted


def test_one_step_of_the_solver_follows_the_plain_gradient() -> None:
    problem = quadratic()
    assert penalty(problem, 1.0, cg_max_steps=1, damping=0.5).accepted
    assert th.cosine_similarity(problem.moved, problem.slope, dim=0).item() == pytest.approx(1.0)


@pytest.mark.parametrize("rule", [penalty, dual])
def test_an_infinite_coefficient_moves_nothing(rule: Any) -> None:
    moved = []
    for kl_coef in (1e2, 1e4, 1e8):
        problem = quadratic()
        rule(problem, kl_coef)
        moved.append(th.linalg.vector_norm(problem.moved).item())
    assert moved[1] == pytest.approx(1e-2 * moved[0], rel=1e-3)
    assert moved[2] == pytest.approx(1e-6 * moved[0], rel=1e-3)
    problem = quadratic()
    report = rule(problem, 1e300)
    assert report.outcome is Outcome.NO_ASCENT
    assert same_bits(flatten(problem.parameters), problem.start)
    assert report.next_kl_coef == 1e300


def test_the_search_shortens_a_step_that_lowers_the_objective() -> None:
    problem = quadratic()
    problem.spoil = lambda trial: trial._replace(kl=5.0 * trial.kl)
    report = penalty(problem, 1.0)
    assert (report.step_fraction, report.line_search_steps) == (0.25, 3)  # the maximum is at 1/5, zero at 2/5
    assert report.surrogate_gain == pytest.approx(0.25 * report.expected_gain)


def test_the_adaptive_rule_on_given_kls() -> None:
    coefs = list(itertools.accumulate((0.05, 0.05, 0.001), lambda coef, kl: adapted_kl_coef(coef, kl, 0.01), initial=1.0))
    assert coefs == [1.0, 2.0, 4.0, 2.0]
    for kl in (0.015, 0.01, 0.0067):
        assert adapted_kl_coef(3.0, kl, 0.01) == 3.0
    assert adapted_kl_coef(1e8, 1.0, 0.01) == 1e8
    assert adapted_kl_coef(1e-8, 0.0, 0.01) == 1e-8


@pytest.mark.parametrize(("kl_coef", "factor"), [(10.0, 0.5), (2.5, 1.0), (1.0, 2.0)])
def test_the_adaptive_rule_follows_the_realised_kl(kl_coef: float, factor: float) -> None:
    report = penalty(gaussian(), kl_coef, adaptive=True)
    assert report.next_kl_coef == factor * kl_coef
    assert penalty(gaussian(), kl_coef).next_kl_coef == kl_coef


def test_the_multiplier_moves_with_the_violation_and_is_never_negative() -> None:
    assert dual_kl_coef_after(1.0, 0.05, 0.02, 10.0) == pytest.approx(1.3)
    assert dual_kl_coef_after(0.1, 0.0, 0.02, 10.0) == 0.0
    report = dual(gaussian(), 5.0)
    assert report.kl == pytest.approx(0.005)
    assert report.next_kl_coef == pytest.approx(5.0 + 10.0 * (0.005 - 0.02))


def test_the_multiplier_converges_to_the_quadratic_models() -> None:
    kl_coef: float | None = 1.0
    for _ in range(200):
        report = dual(gaussian(), kl_coef, n_steps=20, dual_learning_rate=20.0)
        kl_coef = report.next_kl_coef
    assert kl_coef == pytest.approx(2.5, rel=1e-3)
    assert report.kl == pytest.approx(0.02, rel=1e-3)


def test_without_a_penalty_each_step_has_the_length_of_the_trust_region() -> None:
    for n_steps in (1, 3):
        problem = gaussian()
        report = dual(problem, 0.0, n_steps=n_steps)
        assert problem.moved.item() == pytest.approx(0.2 * n_steps)
        assert report.kl == pytest.approx(0.02 * n_steps**2)


@pytest.mark.parametrize("rule", [penalty, dual])
@pytest.mark.parametrize("spoilt", [Trial(NAN, 0.01), Trial(1.0, INF), Trial(INF, NAN), Trial(-1.0, 0.0)])
def test_a_refused_step_changes_no_bit_and_no_coefficient(rule: Any, spoilt: Trial) -> None:
    problem = quadratic()
    problem.spoil = lambda _: spoilt
    report = rule(problem, 1.5, n_steps=3)
    assert problem.evaluations == 10
    assert report.outcome is Outcome.NO_ASCENT
    assert same_bits(flatten(problem.parameters), problem.start)
    assert report.kl_coef == report.next_kl_coef == 1.5
    assert (report.kl, report.surrogate_gain, report.step_fraction) == (0.0, 0.0, 0.0)


def test_a_later_step_that_is_refused_keeps_the_earlier_ones() -> None:
    problem, reference = quadratic(bend=0.02), quadratic(bend=0.02)
    problem.spoil = lambda trial: trial if problem.evaluations == 1 else Trial(NAN, NAN)
    report, expected = penalty(problem, 1.0, n_steps=3), penalty(reference, 1.0)
    assert report.accepted
    assert same_bits(flatten(problem.parameters), flatten(reference.parameters))
    assert (report.kl, report.surrogate_gain, report.step_fraction) == (expected.kl, expected.surrogate_gain, 1.0)
    assert report.line_search_steps == 11


@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_exception_undoes_every_step(error: BaseException, good: int) -> None:
    problem = quadratic(bend=0.02)

    def raises(trial: Trial) -> Trial:
        if problem.evaluations > good:
            raise error
        return trial

    problem.spoil = raises
    with pytest.raises(type(error)):
        penalty(problem, 1.0, n_steps=3)
    assert same_bits(flatten(problem.parameters), problem.start)


@pytest.mark.parametrize("rule", [penalty, dual])
@pytest.mark.parametrize("kl_coef", [None, 2.0])
def test_no_direction_is_no_step(rule: Any, kl_coef: float | None) -> None:
    problem = Quadratic(vector(0.0, 0.0), random_spd(2, 0))
    report = rule(problem, kl_coef)
    assert report.outcome is Outcome.ZERO_GRADIENT
    assert report.next_kl_coef == kl_coef
    assert problem.evaluations == 0


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [
        (penalty, "kl_coef", 0.0),
        (penalty, "kl_coef", NAN),
        (dual, "kl_coef", -1.0),
        (penalty, "n_steps", 0),
        (penalty, "adaptive", 2),
        (dual, "dual_learning_rate", 0.0),
        (dual, "max_kl", -0.1),
    ],
)
def test_settings_out_of_range_are_named(rule: Any, name: str, value: Any) -> None:
    chosen = {"kl_coef": 1.0, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        rule(gaussian(), chosen.pop("kl_coef"), **chosen)

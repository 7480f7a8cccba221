"""The natural policy gradient, on problems with known solutions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch as th

from sb3_trpo.step.flat import flatten
from sb3_trpo.step.natural_gradient import NaturalGradientSettings, natural_gradient_step
from sb3_trpo.step.report import Outcome, Trial, UnboundedReport
from tests.helpers import same_bits
from tests.step.problems import INF, NAN, Quadratic, random_spd, random_vector, vector


def step(problem: Quadratic, **settings: Any) -> UnboundedReport:
    chosen = NaturalGradientSettings(**{"max_kl": 0.02, "damping": 0.0, "cg_max_steps": 20, "cg_tol": 1e-12, **settings})
    report = natural_gradient_step(problem, chosen)
    assert isinstance(report, UnboundedReport)
    return report


def test_a_gaussian_mean() -> None:
    problem = Quadratic(vector(0.5), vector(1.0).diag())
    report = step(problem)
    assert problem.moved.item() == pytest.approx(0.2)
    assert report.kl == pytest.approx(0.02)
    assert (report.target_kl, report.kl_coef, report.step_fraction) == (0.02, None, 1.0)


def test_the_kl_may_exceed_the_target_and_the_report_says_so() -> None:
    problem = Quadratic(vector(1.0, 2.0), random_spd(2, 0))
    problem.spoil = lambda trial: trial._replace(surrogate=-1.0, kl=3.0 * trial.kl)
    report = step(problem)
    assert report.accepted
    assert report.kl == pytest.approx(0.06)
    assert report.surrogate_gain == -1.0
    assert report.kl_over_target


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_fixed_step_size_is_a_multiple_of_the_solution(damping: float, scale: float) -> None:
    problem = Quadratic(random_vector(5, 1), random_spd(5, 2), scale=scale)
    report = step(problem, step_size=0.1, damping=damping)
    matrix = scale**2 * problem.fisher + damping * th.eye(5, dtype=th.float64)
    expected = 0.1 * scale * th.linalg.solve(matrix, scale * problem.slope)
    th.testing.assert_close(problem.moved, expected)
    assert report.expected_gain == pytest.approx(th.dot(problem.slope, expected).item())
    assert not report.kl_over_target or report.kl > 0.02


@pytest.mark.parametrize("spoilt", [Trial(NAN, 0.01), Trial(1.0, INF), Trial(INF, 0.01)])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_a_step_to_numbers_that_are_not_finite_is_undone(spoilt: Trial, dtype: th.dtype) -> None:
    problem = Quadratic(random_vector(5, 1).to(dtype), random_spd(5, 2).to(dtype))
    problem.spoil = lambda _: spoilt
    report = step(problem)
    assert problem.evaluations == 1
    assert same_bits(flatten(problem.parameters), problem.start)
    assert report.outcome is Outcome.TRIAL_NOT_FINITE
    assert (report.kl, report.surrogate_gain, report.step_fraction, report.kl_over_target) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_exception_undoes_the_step(error: BaseException) -> None:
    def raises(_: Trial) -> Trial:
        raise error

    problem = Quadratic(random_vector(5, 1), random_spd(5, 2))
    problem.spoil = raises
    with pytest.raises(type(error)):
        step(problem)
    assert same_bits(flatten(problem.parameters), problem.start)


CASES: dict[Outcome, Callable[[], Quadratic]] = {
    Outcome.ZERO_GRADIENT: lambda: Quadratic(vector(0.0, 0.0), random_spd(2, 0)),
    Outcome.NON_FINITE: lambda: Quadratic(vector(NAN, 0.0), random_spd(2, 0)),
    Outcome.NON_POSITIVE_CURVATURE: lambda: Quadratic(vector(1.0, 1.0), -random_spd(2, 0)),
}


@pytest.mark.parametrize("outcome", CASES)
def test_no_direction_is_no_step(outcome: Outcome) -> None:
    problem = CASES[outcome]()
    report = step(problem)
    assert report.outcome is outcome
    assert problem.evaluations == 0
    assert not problem.moved.any()


@pytest.mark.parametrize(
    ("name", "value"), [("step_size", 0.0), ("step_size", -1.0), ("step_size", math.nan), ("max_kl", 0.0), ("damping", -1.0)]
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        step(Quadratic(vector(1.0), vector(1.0).diag()), **{name: value})

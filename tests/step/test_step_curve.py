"""The curve along a step, on a problem with a known one."""

import pytest
import torch as th

from sb3_trpo.step.flat import flatten
from sb3_trpo.step.natural_gradient import NaturalGradientSettings
from sb3_trpo.step.report import Outcome, StepReport, Trial
from sb3_trpo.step.step_curve import StepCurve, trace_step
from tests.helpers import same_bits
from tests.step.problems import Quadratic, random_spd, random_vector

SETTINGS = NaturalGradientSettings(0.02, 0.0, 30, 1e-13)


def test_gain_is_linear_and_kl_quadratic() -> None:
    problem = Quadratic(random_vector(5, 1), random_spd(5, 2))
    curve = trace_step(problem, SETTINGS, (0.0, 0.5, 1.0))
    assert isinstance(curve, StepCurve)
    assert curve.gains == pytest.approx((0.0, 0.5 * curve.expected_gain, curve.expected_gain))
    assert curve.kls == pytest.approx((0.0, 0.005, 0.02))
    assert curve.max_kl == 0.02
    assert same_bits(flatten(problem.parameters), problem.start)


def test_an_exception_puts_the_parameters_back() -> None:
    def raises(trial: Trial) -> Trial:
        raise RuntimeError("out of memory")

    problem = Quadratic(random_vector(5, 1), random_spd(5, 2))
    problem.spoil = raises
    with pytest.raises(RuntimeError):
        trace_step(problem, SETTINGS, (0.5,))
    assert same_bits(flatten(problem.parameters), problem.start)


def test_without_a_direction_there_is_no_curve() -> None:
    problem = Quadratic(th.zeros(5, dtype=th.float64), random_spd(5, 2))
    report = trace_step(problem, SETTINGS, (0.5,))
    assert isinstance(report, StepReport)
    assert report.outcome is Outcome.ZERO_GRADIENT

"""The surrogate and the KL along a step, for a picture of one update."""

from collections.abc import Sequence
from dataclasses import dataclass

from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.natural_direction import DirectionSettings, natural_direction
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import StepReport


@dataclass(frozen=True)
class StepCurve:
    """
    Surrogate and KL along the full step s along the natural gradient.

    :param fractions: t of the points θ_old + t s
    :param gains: L(θ_old + t s) - L(θ_old)
    :param kls: D(θ_old + t s), nats
    :param expected_gain: gᵀs
    :param max_kl: δ, the KL of the full step in the quadratic model, nats
    """

    fractions: tuple[float, ...]
    gains: tuple[float, ...]
    kls: tuple[float, ...]
    expected_gain: float
    max_kl: float


def trace_step(problem: Problem, settings: DirectionSettings, fractions: Sequence[float]) -> StepCurve | StepReport:
    """
    Evaluate surrogate and KL along the natural gradient, scaled to the KL bound, and put the parameters back bit for bit.

    :param problem: the problem
    :param settings: δ, the damping, and the solver's limits
    :param fractions: fractions of the full step
    :return: the curve; if there is no direction, the report that says why
    """
    direction = natural_direction(problem, settings)
    if isinstance(direction, StepReport):
        return direction
    old = flatten(problem.parameters)
    trials = []
    try:
        for fraction in fractions:
            assign(problem.parameters, old + fraction * direction.step)
            trials.append(problem.evaluate())
    finally:
        assign(problem.parameters, old)
    gains = tuple(trial.surrogate - problem.old.surrogate for trial in trials)
    kls = tuple(trial.kl for trial in trials)
    return StepCurve(tuple(fractions), gains, kls, direction.expected_gain, settings.max_kl)

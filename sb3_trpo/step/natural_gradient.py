"""The natural policy gradient: a step along the natural gradient, of a chosen length, without a search."""

import math
from dataclasses import dataclass

from sb3_trpo.checks import POSITIVE, check, optional
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.natural_direction import Direction, natural_gradient
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import Outcome, StepReport, Trial, UnboundedReport
from sb3_trpo.step.trust_region import RULES

STEP_SIZE = optional(POSITIVE)
"""The allowed values of ``step_size``."""


@dataclass(frozen=True)
class NaturalGradientSettings:
    """
    The user's settings of the step.

    :param max_kl: δ (``target_kl``), nats: the KL that the step has in the quadratic model, if there is no step size
    :param damping: ``cg_damping``, added to the diagonal of F while solving
    :param cg_max_steps: largest number of Fisher-vector products of the solver
    :param cg_tol: relative residual at which the solver stops
    :param step_size: α of the step α x; None: the length with KL δ in the quadratic model
    :raises ValueError: if one is out of range, naming it
    """

    max_kl: float
    damping: float
    cg_max_steps: int
    cg_tol: float
    step_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_kl", "damping", "cg_max_steps", "cg_tol"):
            check(name, getattr(self, name), RULES[name])
        check("step_size", self.step_size, STEP_SIZE)


def natural_gradient_step(problem: Problem, settings: NaturalGradientSettings) -> StepReport:
    """
    Move the parameters along the natural gradient x = (F + damping I)⁻¹ g, without a search: the KL may exceed δ.

    The step is α x. Without a step size, α = √(2δ / xᵀFx), the first trial of TRPO's line search. If surrogate or KL is not
    finite there, or if anything is raised, the saved parameters are copied back bit for bit.

    Source: Kakade 2001, A natural policy gradient; section 7 of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param problem: what to solve
    :param settings: the user's settings
    :return: what happened, an :class:`~sb3_trpo.step.report.UnboundedReport`
    """
    natural = natural_gradient(problem, problem.gradient(), settings)
    if isinstance(natural, StepReport):
        return UnboundedReport.of(natural, settings.max_kl)
    length = natural.length_to_kl(settings.max_kl) if settings.step_size is None else settings.step_size
    direction = natural.direction(problem, length)
    trial = _move(problem, direction)
    if trial is None:
        report = direction.report(Outcome.TRIAL_NOT_FINITE, None, fraction=0.0)
    else:
        report = direction.report(Outcome.ACCEPTED, trial)
    return UnboundedReport.of(report, settings.max_kl)


def _move(problem: Problem, direction: Direction) -> Trial | None:
    """Move the parameters; restore them on an exception, or if the trial is not finite."""
    parameters, old = problem.parameters, flatten(problem.parameters)
    kept = False
    try:
        assign(parameters, old + direction.step)
        trial = problem.evaluate()
        kept = math.isfinite(trial.surrogate) and math.isfinite(trial.kl)
    finally:
        if not kept:
            assign(parameters, old)
    return trial if kept else None

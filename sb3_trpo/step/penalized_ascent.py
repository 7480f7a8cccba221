"""Ascent on the penalised surrogate L - λ D: the part that the rules with a coefficient λ share."""

import math
from dataclasses import dataclass

import torch as th

from sb3_trpo.checks import NOT_NEGATIVE, check, integer, optional
from sb3_trpo.step.flat import assign, dot, flatten
from sb3_trpo.step.line_search import LineSearchResult, backtracking_line_search
from sb3_trpo.step.natural_direction import Direction, NaturalGradient, natural_gradient
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import Outcome, StepReport, Trial
from sb3_trpo.step.trust_region import TrustRegionSettings

N_STEPS = integer(1)
"""The allowed numbers of ascent steps."""


@dataclass(frozen=True)
class AscentSettings(TrustRegionSettings):
    """
    The user's settings of the ascent; those of the line search apply to L - λ D, without a bound on D.

    :param kl_coef: λ, advantage per nat; None: the λ* of this update
    :param n_steps: number of ascent steps
    :raises ValueError: if one is out of range, naming it
    """

    kl_coef: float | None
    n_steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check("kl_coef", self.kl_coef, optional(NOT_NEGATIVE))
        check("n_steps", self.n_steps, N_STEPS)


class Ascent:
    """
    Climbs L - λ D from θ_old, along (F + damping I)⁻¹ ∇(L - λ D), with F at θ_old.

    Each full step s = t x goes to the maximum of the quadratic model along x, so that t = gᵀx / (λ xᵀFx). A backtracking
    search on L - λ D shortens it. One step of the solver (``cg_max_steps=1``) follows the plain gradient.

    :param problem: what to solve
    :param settings: the user's settings
    """

    def __init__(self, problem: Problem, settings: AscentSettings) -> None:
        self._problem = problem
        self._settings = settings
        self._gradient = problem.gradient()
        self._first = natural_gradient(problem, self._gradient, settings)

    @property
    def dual_kl_coef(self) -> float | None:
        """Return λ* = gᵀx / √(2δ xᵀFx), at which the quadratic model's step has the KL δ; None if there is no direction."""
        if isinstance(self._first, StepReport):
            return None
        return _slope(self._first) * self._first.length_to_kl(self._settings.max_kl) / (2.0 * self._settings.max_kl)

    def climb(self, kl_coef: float, length_coef: float) -> StepReport:
        """
        Take the ascent steps. If none is accepted, or if anything is raised, the old parameters are copied back bit for bit.

        :param kl_coef: λ of the objective
        :param length_coef: λ of the steps' lengths, above 0
        :return: what happened; gain, trials and products of all steps together, and the mean of their fractions
        """
        if isinstance(self._first, StepReport):
            return self._first
        parameters, old = self._problem.parameters, flatten(self._problem.parameters)
        here, trial = old, self._problem.old
        reports: list[StepReport] = []
        natural: NaturalGradient | StepReport = self._first
        finished = False
        try:
            while not isinstance(natural, StepReport):
                length = _length(natural, length_coef)
                direction = natural.direction(self._problem, length)
                search, reached = self._search(here, trial, direction, kl_coef)
                outcome = Outcome.NO_ASCENT if reached is None else Outcome.ACCEPTED
                expected = direction._replace(expected_gain=length * dot(self._gradient, natural.solution))
                reports.append(expected.report(outcome, reached, search.fraction, search.trials))
                if reached is None:
                    break
                here, trial = here + search.fraction * direction.step, reached
                if len(reports) == self._settings.n_steps:
                    break
                gradient = self._problem.penalized_gradient(kl_coef)
                assign(parameters, old)  # F is that of θ_old
                natural = natural_gradient(self._problem, gradient, self._settings)
            finished = True
        finally:
            assign(parameters, here if finished else old)
        return _summary(reports, self._problem.old, trial)

    def _search(
        self, here: th.Tensor, trial: Trial, direction: Direction, kl_coef: float
    ) -> tuple[LineSearchResult, Trial | None]:
        """Search along a step for a point with a larger L - λ D; return it with its L and D."""
        settings, parameters = self._settings, self._problem.parameters
        last = trial

        def evaluate_at(fraction: float) -> Trial:
            nonlocal last
            assign(parameters, here + fraction * direction.step)
            last = self._problem.evaluate()
            return last._replace(surrogate=_penalized(last, kl_coef))

        start, bounds = _penalized(trial, kl_coef), (math.inf, settings.shrinking_factor, settings.max_iter)
        search = backtracking_line_search(evaluate_at, start, direction.expected_gain, *bounds, settings.accept_ratio)
        return search, last if search.trial else None


def _length(natural: NaturalGradient, kl_coef: float) -> float:
    """Compute the multiple t of x that maximises the quadratic model t gᵀx - λ/2 t² xᵀFx."""
    penalty = kl_coef * natural.curvature
    return _slope(natural) / penalty if penalty > 0.0 else math.inf


def _slope(natural: NaturalGradient) -> float:
    return dot(natural.gradient, natural.solution)


def _penalized(trial: Trial, kl_coef: float) -> float:
    return trial.surrogate - kl_coef * trial.kl


def _summary(reports: list[StepReport], old: Trial, reached: Trial) -> StepReport:
    """Add up the reports of the ascent steps; the first one decides the outcome."""
    taken = [report for report in reports if report.accepted]
    if not taken:
        return reports[0]
    return StepReport(
        Outcome.ACCEPTED,
        reached.surrogate,
        surrogate_gain=reached.surrogate - old.surrogate,
        expected_gain=sum(report.expected_gain for report in taken),
        kl=reached.kl,
        step_fraction=sum(report.step_fraction for report in taken) / len(taken),
        line_search_steps=sum(report.line_search_steps for report in reports),
        cg_iterations=sum(report.cg_iterations for report in reports),
        cg_residual=max(report.cg_residual for report in reports),
        cg_outcome=reports[-1].cg_outcome,
    )

"""The natural gradient, scaled to the KL bound: the part that several step rules share."""

import math
from typing import Any, NamedTuple, Protocol

import torch as th

from sb3_trpo.step.conjugate_gradient import CGOutcome, CGResult, conjugate_gradient
from sb3_trpo.step.flat import dot
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import Outcome, StepReport, Trial

_LEAST_SHARE = 1e-3
"""Smallest share of xᵀ(F + damping I)x at which xᵀFx may be computed as a difference in float32."""


class DirectionSettings(Protocol):
    """The settings of a step rule that determine its direction."""

    @property
    def max_kl(self) -> float:
        """Return δ, nats."""

    @property
    def damping(self) -> float:
        """Return the number added to the diagonal of F while solving."""

    @property
    def cg_max_steps(self) -> int:
        """Return the largest number of Fisher-vector products of the solver."""

    @property
    def cg_tol(self) -> float:
        """Return the relative residual at which the solver stops."""


class Direction(NamedTuple):
    """
    A full step s along the natural gradient.

    :param step: s, a step of the parameters with KL δ in the quadratic model, shape (P,)
    :param expected_gain: gᵀs
    :param cg: the solver's result
    :param old: L(θ_old) and D(θ_old)
    """

    step: th.Tensor
    expected_gain: float
    cg: CGResult
    old: Trial

    def report(self, outcome: Outcome, trial: Trial | None, fraction: float = 1.0, trials: int = 1) -> StepReport:
        """
        Report how a step along this direction ended.

        :param outcome: how it ended
        :param trial: L and D at the new parameters; None if these are the old ones
        :param fraction: fraction of the full step that was taken
        :param trials: number of points that were evaluated
        :return: the report
        """
        reached = trial or Trial(self.old.surrogate, 0.0)
        return StepReport(
            outcome,
            reached.surrogate,
            surrogate_gain=reached.surrogate - self.old.surrogate,
            expected_gain=self.expected_gain,
            kl=reached.kl,
            step_fraction=fraction,
            line_search_steps=trials,
            **_of_the_solver(self.cg),
        )


class NaturalGradient(NamedTuple):
    """
    A solution x of (F + damping I) x = g.

    :param solution: x, in the problem's coordinates, shape (P,)
    :param gradient: g, in the same coordinates, shape (P,)
    :param curvature: xᵀFx, above 0
    :param cg: the solver's result
    """

    solution: th.Tensor
    gradient: th.Tensor
    curvature: float
    cg: CGResult

    def length_to_kl(self, kl: float) -> float:
        """
        Compute the multiple of x with a given KL in the quadratic model.

        :param kl: D, nats
        :return: √(2 D / xᵀFx)
        """
        return math.sqrt(2.0 * kl / self.curvature)

    def direction(self, problem: Problem, length: float) -> Direction:
        """
        Take a multiple of x as the full step.

        :param problem: the problem that was solved
        :param length: the multiple
        :return: the step
        """
        step = length * self.solution
        return Direction(problem.to_parameters(step), dot(self.gradient, step), self.cg, problem.old)


def natural_direction(problem: Problem, settings: DirectionSettings) -> Direction | StepReport:
    """
    Solve (F + damping I) x = g and scale x to √(2δ / xᵀFx).

    The scale uses F without the damping, so that the realised KL is close to δ. If F is estimated from few states, x fits
    their noise, so an independent estimate of F measures its length.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param problem: what to solve
    :param settings: δ, the damping, and the solver's limits
    :return: the direction; if there is none, the report of a step that moved nothing
    """
    natural = natural_gradient(problem, problem.gradient(), settings)
    if isinstance(natural, StepReport):
        return natural
    return natural.direction(problem, natural.length_to_kl(settings.max_kl))


def natural_gradient(problem: Problem, gradient: th.Tensor, settings: DirectionSettings) -> NaturalGradient | StepReport:
    """
    Solve (F + damping I) x = g for any gradient.

    The parameters must be θ_old, where F is.

    :param problem: what to solve
    :param gradient: g, in the problem's coordinates, shape (P,)
    :param settings: the damping and the solver's limits
    :return: x; if there is none, the report of a step that moved nothing
    """
    old = problem.old
    if not math.isfinite(old.surrogate) or not math.isfinite(dot(gradient, gradient)):
        return StepReport(Outcome.NON_FINITE, old.surrogate)
    if not gradient.any():
        return StepReport(Outcome.ZERO_GRADIENT, old.surrogate)

    def damped_product(v: th.Tensor) -> th.Tensor:
        return problem.curvature(v).add(v, alpha=settings.damping)

    cg = conjugate_gradient(damped_product, gradient, settings.cg_max_steps, settings.cg_tol, settings.damping)
    curvature = _undamped_curvature(problem, cg, settings.damping)
    if not 0.0 < curvature < math.inf:
        outcome = Outcome.NON_POSITIVE_CURVATURE if -math.inf < curvature <= 0.0 else Outcome.NON_FINITE
        return StepReport(outcome, old.surrogate, **_of_the_solver(cg))
    return NaturalGradient(cg.solution, gradient, curvature, cg)


def _of_the_solver(cg: CGResult) -> dict[str, Any]:
    """Make the solver's part of a report."""
    return {"cg_iterations": cg.iterations, "cg_residual": cg.residual, "cg_outcome": cg.outcome}


def _undamped_curvature(problem: Problem, cg: CGResult, damping: float) -> float:
    """
    Compute xᵀFx, or the larger of two independent estimates of it.

    The solver's (F + damping I)x saves a product, unless the damping is so large that the difference loses its digits.
    """
    if cg.outcome is CGOutcome.NOT_FINITE:
        return math.nan
    damped = dot(cg.solution, cg.image)
    curvature = damped - damping * dot(cg.solution, cg.solution)
    if not curvature > _LEAST_SHARE * damped:
        curvature = dot(cg.solution, problem.curvature(cg.solution))
    other_product = problem.independent_curvature(cg.solution)
    if other_product is None:
        return curvature
    other = dot(cg.solution, other_product)
    return curvature if other <= curvature else other  # NaN included

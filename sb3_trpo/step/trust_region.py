"""
The trust-region step: conjugate gradient, scaling to the KL bound, backtracking line search.

Knows nothing of policies or environments: it maximises any surrogate L(θ) under any constraint D(θ) <= δ, given the
gradient g of L, products with the Hessian F of D, and a function that evaluates both. Letters as in the TRPO paper
(https://arxiv.org/abs/1502.05477, section 6 and appendix C).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch as th

from sb3_trpo.step.flat import assign, dot, flatten

MatVec = Callable[[th.Tensor], th.Tensor]


class Outcome(Enum):
    """How a step ended; the value says what happened and what to look at."""

    ACCEPTED = "accepted"
    ZERO_SIGNAL = "no step: all advantages are equal but for rounding"
    ZERO_GRADIENT = "no step: the surrogate's gradient is zero"
    NO_TRUST_REGION = "no step: the schedule of target_kl is at 0"
    NO_PARAMETERS = "no step: no trainable parameter reaches the action distribution"
    NON_POSITIVE_CURVATURE = "no step: the Fisher matrix has no positive curvature along the step; raise cg_damping"
    NON_FINITE = "no step: the gradient or a Fisher-vector product is not finite; look at the policy's outputs"
    LINE_SEARCH_FAILED = "no step: no trial kept the KL bound and raised the surrogate; raise line_search_max_iter"


class Trial(NamedTuple):
    """
    Surrogate and constraint at one point.

    :param surrogate: L(θ)
    :param kl: D(θ), nats
    """

    surrogate: float
    kl: float


class CGResult(NamedTuple):
    """
    What conjugate gradient found.

    :param solution: the last iterate, shape (P,)
    :param iterations: products with the matrix
    :param residual: norm of b - A x over the norm of b
    :param finite: whether every product was finite
    :param image: A x, but for rounding, shape (P,)
    """

    solution: th.Tensor
    iterations: int
    residual: float
    finite: bool
    image: th.Tensor


def conjugate_gradient(matvec: MatVec, b: th.Tensor, max_steps: int, tol: float, smallest: float = 0.0) -> CGResult:
    """
    Solve A x = b for a symmetric positive semi-definite A, from x = 0.

    Stops at the relative residual ``tol``, after ``max_steps``, or where A has no positive curvature. Differs from the
    usual TRPO solver in that the tolerance is relative, that the start is not random, and that curvature that may be
    rounding counts as none: on a singular system it would take over the solution.

    Every iterate has a larger bᵀx than the one before, and a step that is scaled to the KL δ gains √(2δ bᵀx). The residual may
    grow on the way: beside a few large curvatures the early iterates have the smallest, and gain least.

    Source: Hestenes and Stiefel 1952; appendix C of the paper.

    :param matvec: v -> A v
    :param b: right-hand side, shape (P,)
    :param max_steps: most products with A
    :param tol: relative residual to stop at
    :param smallest: bound below the eigenvalues of A: the damping that it contains
    :return: solution and statistics; the solution is zero if the first product shows no positive curvature
    """
    x, residual, direction = th.zeros_like(b), b.clone(), b.clone()
    squared = initial = dot(b, b)
    iterations = 0
    largest = 0.0  # curvature per length of direction seen so far
    while iterations < max_steps and squared > tol**2 * initial:
        product = matvec(direction)
        iterations += 1
        curvature = dot(direction, product)
        if not math.isfinite(curvature):
            return CGResult(x, iterations, math.sqrt(squared / initial), False, b - residual)
        length = dot(direction, direction)
        largest = max(largest, curvature / length)
        rounding = th.finfo(b.dtype).eps * largest  # of a product, per length
        if curvature <= (0.5 * smallest if smallest > rounding else 100.0 * rounding) * length:
            break  # none, but for rounding
        step = squared / curvature
        x = x.add(direction, alpha=step)
        residual = residual.sub(product, alpha=step)
        previous, squared = squared, dot(residual, residual)
        direction = residual.add(direction, alpha=squared / previous)
    relative = math.sqrt(squared / initial) if initial > 0.0 else 0.0
    return CGResult(x, iterations, relative, True, b - residual)


class LineSearchResult(NamedTuple):
    """
    Where backtracking stopped.

    :param fraction: accepted fraction of the full step; 0.0 if none was
    :param trial: surrogate and KL there; None if no fraction was accepted
    :param trials: points evaluated
    """

    fraction: float
    trial: Trial | None
    trials: int


def backtracking_line_search(
    evaluate: Callable[[float], Trial],
    surrogate_old: float,
    expected_gain: float,
    max_kl: float,
    shrinking_factor: float,
    max_iter: int,
    accept_ratio: float = 0.0,
) -> LineSearchResult:
    """
    Try the fractions 1, ρ, ρ², … of a step and accept the first that keeps the bound and improves.

    A fraction t is accepted if L and D are finite, D <= ``max_kl``, L > ``surrogate_old`` and
    L - ``surrogate_old`` >= ``accept_ratio`` * t * ``expected_gain``. Source: appendix C of the paper.

    :param evaluate: fraction -> surrogate and KL
    :param surrogate_old: L at fraction 0
    :param expected_gain: gᵀs, what the linear model promises for the full step s
    :param max_kl: δ, nats
    :param shrinking_factor: ρ, in (0, 1)
    :param max_iter: most trials
    :param accept_ratio: least share of the promised gain
    :return: the accepted fraction, if any
    """
    fraction = 1.0
    for trials in range(1, max_iter + 1):
        trial = evaluate(fraction)
        gain = trial.surrogate - surrogate_old
        finite = math.isfinite(trial.surrogate) and math.isfinite(trial.kl)
        if finite and trial.kl <= max_kl and gain > 0.0 and gain >= accept_ratio * fraction * expected_gain:
            return LineSearchResult(fraction, trial, trials)
        fraction *= shrinking_factor
    return LineSearchResult(0.0, None, max_iter)


@dataclass(frozen=True)
class StepReport:
    """
    One policy step. Without an accepted step KL, gain and fraction are 0: the parameters are the old ones.

    :param outcome: how it ended
    :param surrogate: L after the step
    :param surrogate_gain: L(θ) - L(θ_old)
    :param expected_gain: gᵀs of the full step
    :param kl: D after the step, nats
    :param step_fraction: accepted fraction of the full step
    :param line_search_steps: trials of the line search
    :param cg_iterations: Fisher-vector products of the solver
    :param cg_residual: relative residual of its solution
    """

    outcome: Outcome
    surrogate: float
    surrogate_gain: float = 0.0
    expected_gain: float = 0.0
    kl: float = 0.0
    step_fraction: float = 0.0
    line_search_steps: int = 0
    cg_iterations: int = 0
    cg_residual: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the parameters moved."""
        return self.outcome is Outcome.ACCEPTED


@dataclass(frozen=True)
class StepSettings:
    """
    What the user chooses of the step.

    :param max_kl: δ (``target_kl``), nats
    :param damping: ``cg_damping``, added to the diagonal of F while solving
    :param cg_max_steps: most Fisher-vector products of the solver
    :param cg_tol: relative residual at which the solver stops
    :param shrinking_factor: ρ of the line search
    :param max_iter: most trials of the line search
    :param accept_ratio: least share of the promised gain
    """

    max_kl: float
    damping: float
    cg_max_steps: int
    cg_tol: float
    shrinking_factor: float
    max_iter: int
    accept_ratio: float


_LEAST_SHARE = 1e-3
"""Share of xᵀ(F + damping I)x from which xᵀFx may be taken as a difference in float32."""


def _undamped_curvature(cg: CGResult, damping: float, fisher_vector_product: MatVec, other_product: MatVec | None) -> float:
    """xᵀFx: what the solver knows of (F + damping I)x spares a product, unless the damping drowns F; the larger estimate."""
    damped = dot(cg.solution, cg.image)
    curvature = damped - damping * dot(cg.solution, cg.solution)
    if not curvature > _LEAST_SHARE * damped:
        curvature = dot(cg.solution, fisher_vector_product(cg.solution))
    if other_product is None:
        return curvature
    other = dot(cg.solution, other_product(cg.solution))
    return curvature if other <= curvature else other  # NaN included


def _search_along(
    step: th.Tensor,
    parameters: Sequence[th.Tensor],
    evaluate: Callable[[], Trial],
    surrogate_old: float,
    expected_gain: float,
    settings: StepSettings,
) -> LineSearchResult:
    """Leave the parameters at the first accepted fraction of the step, or else, and if anything is raised, as they were."""
    old = flatten(parameters)

    def evaluate_at(fraction: float) -> Trial:
        assign(parameters, old + fraction * step)
        return evaluate()

    accepted = False
    try:
        search = backtracking_line_search(
            evaluate_at,
            surrogate_old,
            expected_gain,
            settings.max_kl,
            settings.shrinking_factor,
            settings.max_iter,
            settings.accept_ratio,
        )
        accepted = search.trial is not None
    finally:
        if not accepted:
            assign(parameters, old)
    return search


def trust_region_step(
    parameters: Sequence[th.Tensor],
    gradient: th.Tensor,
    fisher_vector_product: MatVec,
    evaluate: Callable[[], Trial],
    surrogate_old: float,
    settings: StepSettings,
    other_product: MatVec | None = None,
) -> StepReport:
    """
    Move the parameters along (F + damping I)⁻¹ g, scaled to √(2δ / xᵀFx), as far as the line search accepts.

    The scale uses F without the damping, so that the realised KL comes near δ; where F is an estimate from few states, the
    solution fits their noise, and an independent estimate tells its length. If nothing is accepted, or if anything
    is raised, the saved parameters are copied back bit for bit.

    :param parameters: tensors to move, P elements in all
    :param gradient: g, shape (P,)
    :param fisher_vector_product: v -> F v, undamped
    :param evaluate: surrogate and KL at the present value of the parameters
    :param surrogate_old: L(θ_old)
    :param settings: what the user chose
    :param other_product: v -> F v, undamped, from states that the solver does not see
    :return: what happened
    """
    if not math.isfinite(surrogate_old) or not math.isfinite(dot(gradient, gradient)):
        return StepReport(Outcome.NON_FINITE, surrogate_old)
    if not gradient.any():
        return StepReport(Outcome.ZERO_GRADIENT, surrogate_old)

    def damped_product(v: th.Tensor) -> th.Tensor:
        return fisher_vector_product(v).add(v, alpha=settings.damping)

    cg = conjugate_gradient(damped_product, gradient, settings.cg_max_steps, settings.cg_tol, settings.damping)
    curvature = math.nan
    if cg.finite:
        curvature = _undamped_curvature(cg, settings.damping, fisher_vector_product, other_product)
    if not math.isfinite(curvature):
        return StepReport(Outcome.NON_FINITE, surrogate_old, cg_iterations=cg.iterations)
    if curvature <= 0.0:
        outcome = Outcome.NON_POSITIVE_CURVATURE
        return StepReport(outcome, surrogate_old, cg_iterations=cg.iterations, cg_residual=cg.residual)

    step = math.sqrt(2.0 * settings.max_kl / curvature) * cg.solution
    expected_gain = dot(gradient, step)
    search = _search_along(step, parameters, evaluate, surrogate_old, expected_gain, settings)
    trial = search.trial or Trial(surrogate_old, 0.0)
    return StepReport(
        outcome=Outcome.ACCEPTED if search.trial else Outcome.LINE_SEARCH_FAILED,
        surrogate=trial.surrogate,
        surrogate_gain=trial.surrogate - surrogate_old,
        expected_gain=expected_gain,
        kl=trial.kl,
        step_fraction=search.fraction,
        line_search_steps=search.trials,
        cg_iterations=cg.iterations,
        cg_residual=cg.residual,
    )

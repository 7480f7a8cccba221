"""Conjugate gradient: solves A x = b with products A v alone."""

import math
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import torch as th

from sb3_trpo.step.flat import dot

MatVec = Callable[[th.Tensor], th.Tensor]
"""v -> A v, both of shape (P,)."""


class CGOutcome(Enum):
    """Why the solver stopped, in words."""

    TOLERANCE_REACHED = "tolerance reached"
    STEPS_USED_UP = "steps used up"
    CURVATURE_LOST = "curvature lost"
    NOT_FINITE = "not finite"


class CGResult(NamedTuple):
    """
    Holds what conjugate gradient found.

    :param solution: the last iterate, shape (P,)
    :param image: A x, but for rounding, shape (P,)
    :param iterations: products with the matrix
    :param residual: norm of b - A x over the norm of b
    :param outcome: why it stopped
    """

    solution: th.Tensor
    image: th.Tensor
    iterations: int
    residual: float
    outcome: CGOutcome


def conjugate_gradient(matvec: MatVec, b: th.Tensor, max_steps: int, tol: float, damping: float = 0.0) -> CGResult:
    """
    Solve A x = b for a symmetric positive semi-definite A, from x = 0.

    Stops at the relative residual ``tol``, after ``max_steps``, or where A has no positive curvature. Differs from the
    usual TRPO solver in that the tolerance is relative, that the start is not random, and that curvature that may be
    rounding counts as none: on a singular system it would take over the solution.

    Every iterate has a larger bᵀx than the one before, and a step that is scaled to the KL δ gains √(2δ bᵀx). The residual may
    grow on the way: beside a few large curvatures the early iterates have the smallest, and gain least.

    Source: Hestenes and Stiefel 1952; appendix C of the paper (https://arxiv.org/abs/1502.05477).

    :param matvec: v -> A v
    :param b: right-hand side, shape (P,)
    :param max_steps: most products with A
    :param tol: relative residual to stop at
    :param damping: what A has on its diagonal, a lower bound of its eigenvalues
    :return: solution and statistics; the solution is zero if the first product shows no positive curvature
    """
    x, residual, direction = th.zeros_like(b), b.clone(), b.clone()
    squared = initial = dot(b, b)
    iterations = 0
    largest = 0.0  # curvature per length of direction seen so far
    outcome = CGOutcome.TOLERANCE_REACHED
    while squared > tol**2 * initial:
        if iterations == max_steps:
            outcome = CGOutcome.STEPS_USED_UP
            break
        product = matvec(direction)
        iterations += 1
        curvature = dot(direction, product)
        if not math.isfinite(curvature):
            outcome = CGOutcome.NOT_FINITE
            break
        length = dot(direction, direction)
        largest = max(largest, curvature / length)
        rounding = th.finfo(b.dtype).eps * largest  # of a product, per length
        if curvature <= (0.5 * damping if damping > rounding else 100.0 * rounding) * length:
            outcome = CGOutcome.CURVATURE_LOST  # there is none, but for rounding
            break
        step = squared / curvature
        x = x.add(direction, alpha=step)
        residual = residual.sub(product, alpha=step)
        previous, squared = squared, dot(residual, residual)
        direction = residual.add(direction, alpha=squared / previous)
    relative = math.sqrt(squared / initial) if initial > 0.0 else 0.0
    return CGResult(x, b - residual, iterations, relative, outcome)

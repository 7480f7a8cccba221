"""Conjugate gradient: solves A x = b with products A v alone."""

import math
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import torch as th

from sb3_trpo.step.flat import dot

MatVec = Callable[[th.Tensor], th.Tensor]
"""Maps v to A v, both of shape (P,)."""


class CGOutcome(Enum):
    """The reason, in words, why the solver stopped."""

    TOLERANCE_REACHED = "tolerance reached"
    STEPS_USED_UP = "steps used up"
    CURVATURE_LOST = "curvature lost"
    NOT_FINITE = "not finite"


class CGResult(NamedTuple):
    """
    The result of conjugate gradient.

    :param solution: the last iterate x, shape (P,)
    :param image: A x up to rounding, shape (P,)
    :param iterations: number of products with the matrix
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

    It stops at the relative residual ``tol``, after ``max_steps``, or where A has no positive curvature. Unlike in the usual
    TRPO solver, the tolerance is relative, the start is not random, and curvature that may be a rounding error counts as
    none: on a singular system it would dominate the solution.

    Every iterate has a larger bᵀx than the one before, and a step that is scaled to the KL δ gains √(2δ bᵀx). The residual may
    grow on the way: if a few curvatures are large, the early iterates have the smallest residuals and the smallest gains.

    Source: Hestenes and Stiefel 1952; appendix C of the paper (https://arxiv.org/abs/1502.05477).

    :param matvec: maps v to A v
    :param b: right-hand side, shape (P,)
    :param max_steps: largest number of products with A
    :param tol: relative residual at which to stop
    :param damping: the part of A that is a multiple of the identity, a lower bound on its eigenvalues
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
            outcome = CGOutcome.CURVATURE_LOST  # there is none, up to rounding
            break
        step = squared / curvature
        x = x.add(direction, alpha=step)
        residual = residual.sub(product, alpha=step)
        previous, squared = squared, dot(residual, residual)
        direction = residual.add(direction, alpha=squared / previous)
    relative = math.sqrt(squared / initial) if initial > 0.0 else 0.0
    return CGResult(x, b - residual, iterations, relative, outcome)

"""Conjugate gradient, on systems whose answer is known."""

import itertools

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_trpo.step.conjugate_gradient import CGOutcome, conjugate_gradient
from tests.helpers import generator_states
from tests.step.problems import (
    HILBERT,
    INF,
    NAN,
    PROPERTY,
    WELL_POSED,
    random_spd,
    random_vector,
    relative_residual,
    rotated,
    second_difference,
    vector,
)


@pytest.mark.parametrize("name", WELL_POSED)
def test_cg_is_exact_after_as_many_steps_as_unknowns(name: str) -> None:
    matrix = WELL_POSED[name]
    expected = random_vector(len(matrix), seed=3)
    result = conjugate_gradient(matrix.mv, matrix @ expected, len(matrix), 0.0)
    th.testing.assert_close(result.solution, expected, rtol=1e-8, atol=1e-8)
    assert result.iterations <= len(matrix)
    assert result.residual < 1e-8
    assert result.outcome is not CGOutcome.NOT_FINITE


def test_cg_needs_one_step_for_every_distinct_eigenvalue() -> None:
    matrix = vector(2.0, 2.0, 2.0, 5.0, 5.0, 9.0).diag()
    assert conjugate_gradient(matrix.mv, random_vector(6, seed=0), 6, 1e-10).iterations == 3


@pytest.mark.parametrize("matrix", [HILBERT, random_spd(20, seed=4, smallest=1e-8, largest=1e2)])
def test_cg_reports_the_true_residual_on_ill_conditioned_systems(matrix: th.Tensor) -> None:
    b = matrix @ random_vector(len(matrix), seed=5)
    result = conjugate_gradient(matrix.mv, b, 200, 1e-6)
    assert result.residual <= 1e-6
    assert relative_residual(matrix, result.solution, b) == pytest.approx(result.residual, rel=1e-3)


def test_cg_goes_on_in_float32_far_below_the_largest_curvature() -> None:
    """Convolutional policies: one curvature of 1e4 and more, from what all images share, beside many that damping decides."""
    matrix = th.cat([th.tensor([1e5]), th.linspace(0.1, 1.0, 30)]).diag()
    expected = th.ones(31)
    result = conjugate_gradient(matrix.mv, matrix @ expected, 40, 0.0, damping=0.1)
    th.testing.assert_close(result.solution, expected, rtol=1e-2, atol=1e-2)


@PROPERTY
@given(size=st.integers(1, 12), seed=st.integers(0, 1000), max_steps=st.integers(0, 14))
def test_cg_reports_the_true_residual_wherever_it_stops(size: int, seed: int, max_steps: int) -> None:
    matrix, b = random_spd(size, seed), random_vector(size, seed + 1)
    result = conjugate_gradient(matrix.mv, b, max_steps, 1e-8)
    assert relative_residual(matrix, result.solution, b) == pytest.approx(result.residual, rel=1e-4, abs=1e-12)
    assert result.iterations <= max_steps


def test_cg_finds_the_shortest_solution_of_a_singular_consistent_system() -> None:
    matrix = rotated(3.0, 1.0, 0.0, 0.0)
    b = matrix @ random_vector(4, seed=7)
    result = conjugate_gradient(matrix.mv, b, 50, 1e-10)
    th.testing.assert_close(result.solution, th.linalg.pinv(matrix, rcond=1e-8) @ b, rtol=1e-8, atol=1e-10)
    assert result.residual <= 1e-10


def gain_squared(matrix: th.Tensor, b: th.Tensor, x: th.Tensor) -> float:
    """What b gains along x, squared, for a curvature of 1: the solver's aim."""
    return (th.dot(b, x) ** 2 / th.dot(x, matrix @ x)).item()


def test_cg_gains_more_with_every_step_though_the_residual_grows() -> None:
    matrix = th.cat([vector(1e4, 3e3), th.linspace(0.1, 1.0, 30, dtype=th.float64)]).diag()
    b = th.cat([vector(10.0, 10.0), th.linspace(0.1, 1.0, 30, dtype=th.float64)])
    results = [conjugate_gradient(matrix.mv, b, max_steps, 0.0, damping=0.1) for max_steps in range(1, 16)]
    gains = [gain_squared(matrix, b, result.solution) for result in results]
    assert all(gain > before for before, gain in itertools.pairwise(gains))
    assert gains[-1] == pytest.approx(th.dot(b, th.linalg.solve(matrix, b)).item(), rel=1e-4)
    residuals = [result.residual for result in results]
    assert residuals != sorted(residuals, reverse=True)


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("seed", range(20))
def test_rounding_does_not_take_over_on_a_singular_inconsistent_system(dtype: th.dtype, seed: int) -> None:
    matrix = rotated(5.0, 3.0, 1.0, 0.2, 0.0, 0.0, seed=seed)
    b = th.ones(6, dtype=th.float64)
    gains = []
    for max_steps in range(1, 40):
        result = conjugate_gradient(matrix.to(dtype).mv, b.to(dtype), max_steps, 0.0)
        assert result.outcome is not CGOutcome.NOT_FINITE
        if dtype == th.float64:
            assert relative_residual(matrix, result.solution, b) == pytest.approx(result.residual, rel=1e-6)
        gains.append(gain_squared(matrix, b, result.solution.double()))
    assert all(gain > before * 0.999 for before, gain in itertools.pairwise(gains))


def test_cg_has_nothing_to_do_for_zero() -> None:
    def never(_: th.Tensor) -> th.Tensor:
        raise AssertionError("asked for a product")

    result = conjugate_gradient(never, th.zeros(4), 10, 1e-10)
    assert (result.solution.tolist(), result.iterations, result.residual, result.outcome) == (
        [0.0] * 4,
        0,
        0.0,
        CGOutcome.TOLERANCE_REACHED,
    )


def test_cg_without_positive_curvature_gives_zero() -> None:
    for matrix in (-th.eye(3, dtype=th.float64), th.zeros(3, 3, dtype=th.float64)):
        result = conjugate_gradient(matrix.mv, th.ones(3, dtype=th.float64), 10, 1e-10)
        assert (result.solution.tolist(), result.iterations, result.residual) == ([0.0] * 3, 1, 1.0)
        assert result.outcome is not CGOutcome.NOT_FINITE


def test_cg_stops_at_negative_curvature_with_what_it_has() -> None:
    matrix, b = vector(10.0, 9.0, -0.1).diag(), vector(1.0, 1.0, 0.01)
    result = conjugate_gradient(matrix.mv, b, 10, 1e-10)
    assert result.outcome is not CGOutcome.NOT_FINITE
    assert result.iterations < 10
    assert 0.0 < result.residual < 0.1
    assert th.dot(result.solution, matrix @ result.solution) > 0.0


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("good_products", [0, 1, 2])
def test_cg_reports_a_product_that_is_not_finite(value: float, good_products: int) -> None:
    matrix = vector(1.0, 2.0, 3.0, 4.0).diag()
    calls: list[int] = []

    def product(v: th.Tensor) -> th.Tensor:
        calls.append(1)
        spoilt = vector(0.0, value, 0.0, 0.0) if len(calls) > good_products else 0.0
        return matrix @ v + spoilt

    result = conjugate_gradient(product, th.ones(4, dtype=th.float64), 10, 0.0)
    assert result.outcome is CGOutcome.NOT_FINITE
    assert result.iterations == good_products + 1
    assert th.isfinite(result.solution).all()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_cg_tolerance_is_relative_to_the_right_hand_side(scale: float) -> None:
    matrix, b = random_spd(15, seed=8), random_vector(15, seed=9)
    one, scaled = conjugate_gradient(matrix.mv, b, 15, 1e-2), conjugate_gradient(matrix.mv, scale * b, 15, 1e-2)
    assert scaled.iterations == one.iterations
    assert scaled.residual == pytest.approx(one.residual, rel=1e-6)
    th.testing.assert_close(scaled.solution, scale * one.solution, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("tol", [0.5, 1e-1, 1e-2, 1e-4])
def test_cg_stops_as_soon_as_the_tolerance_is_reached(tol: float) -> None:
    matrix, b = random_spd(15, seed=8), random_vector(15, seed=9)
    result = conjugate_gradient(matrix.mv, b, 15, tol)
    assert result.residual <= tol
    assert conjugate_gradient(matrix.mv, b, result.iterations - 1, tol).residual > tol


@pytest.mark.parametrize("max_steps", [0, 1, 3, 7])
def test_cg_asks_for_no_more_products_than_allowed(max_steps: int) -> None:
    matrix, b = random_spd(15, seed=8), random_vector(15, seed=9)
    calls: list[int] = []

    def product(v: th.Tensor) -> th.Tensor:
        calls.append(1)
        return matrix @ v

    assert conjugate_gradient(product, b, max_steps, 0.0).iterations == len(calls) == max_steps


def test_cg_takes_the_first_step_even_where_the_residual_grows() -> None:
    # the energy norm of the error falls at every step, the residual need not: here from 10 to 50
    matrix, b = vector(100.0, 1.0).diag(), vector(1.0, 10.0)
    result = conjugate_gradient(matrix.mv, b, 1, 0.0)
    th.testing.assert_close(result.solution, b * th.dot(b, b) / th.dot(b, matrix @ b))


def test_cg_leaves_its_arguments_alone() -> None:
    matrix, b = random_spd(4, seed=0), random_vector(4, seed=1)
    before, states = b.clone(), generator_states()
    conjugate_gradient(matrix.mv, b, 4, 0.0)
    assert th.equal(b, before)
    assert generator_states() == states


@pytest.mark.parametrize("max_steps", [1, 3, 11])
def test_cg_says_that_its_steps_were_used_up(max_steps: int) -> None:
    matrix = second_difference(12)
    result = conjugate_gradient(matrix.mv, random_vector(12, seed=0), max_steps, 1e-12)
    assert (result.outcome, result.iterations) == (CGOutcome.STEPS_USED_UP, max_steps)
    assert result.residual > 1e-12


@pytest.mark.parametrize("tol", [0.5, 1e-6])
def test_cg_says_that_the_tolerance_was_reached(tol: float) -> None:
    matrix = second_difference(12)
    result = conjugate_gradient(matrix.mv, random_vector(12, seed=0), 100, tol)
    assert result.outcome is CGOutcome.TOLERANCE_REACHED
    assert result.residual <= tol


def test_cg_says_that_the_curvature_was_lost() -> None:
    result = conjugate_gradient(vector(1.0, -2.0, 3.0).diag().mv, vector(1.0, 1.0, 1.0), 10, 1e-10)
    assert result.outcome is CGOutcome.CURVATURE_LOST


def test_the_last_step_that_reaches_the_tolerance_is_not_one_too_many() -> None:
    matrix = vector(2.0, 2.0, 5.0).diag()
    result = conjugate_gradient(matrix.mv, vector(1.0, 1.0, 1.0), 2, 1e-8)
    assert (result.outcome, result.iterations) == (CGOutcome.TOLERANCE_REACHED, 2)

"""Conjugate gradient, line search and the whole step, on problems whose answer is known."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trpo import TRPO
from sb3_trpo.step.conjugate_gradient import CGOutcome, conjugate_gradient
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.line_search import LineSearchResult, backtracking_line_search
from sb3_trpo.step.report import Outcome, StepReport, Trial
from sb3_trpo.step.trust_region import TrustRegionSettings, trust_region_step
from tests.helpers import generator_states, same_bits
from tests.toy_envs import RandomEnv

NAN, INF = math.nan, math.inf
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def random_spd(size: int, seed: int, smallest: float = 0.1, largest: float = 10.0) -> th.Tensor:
    """A symmetric matrix with eigenvalues spread evenly in the logarithm."""
    generator = th.Generator().manual_seed(seed)
    basis: th.Tensor = th.linalg.qr(th.randn(size, size, generator=generator, dtype=th.float64))[0]
    eigenvalues = th.logspace(math.log10(smallest), math.log10(largest), size, dtype=th.float64)
    return basis @ eigenvalues.diag() @ basis.T


def random_vector(size: int, seed: int) -> th.Tensor:
    return th.randn(size, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def vector(*values: float) -> th.Tensor:
    return th.tensor(values, dtype=th.float64)


def relative_residual(matrix: th.Tensor, solution: th.Tensor, b: th.Tensor) -> float:
    return float(th.linalg.vector_norm(b - matrix @ solution) / th.linalg.vector_norm(b))


def second_difference(size: int) -> th.Tensor:
    off = th.ones(size - 1, dtype=th.float64)
    return 2.0 * th.eye(size, dtype=th.float64) - off.diag(1) - off.diag(-1)


HILBERT = 1.0 / (th.arange(8, dtype=th.float64)[:, None] + th.arange(8, dtype=th.float64) + 1.0)
WELL_POSED = {
    "identity": th.eye(5, dtype=th.float64),
    "diagonal": vector(1.0, 2.0, 3.0, 4.0).diag(),
    "second_difference": second_difference(12),
    "random": random_spd(15, seed=0, smallest=0.5, largest=5.0),
    "one_by_one": vector(3.0).diag(),
    "tiny": 1e-12 * random_spd(6, seed=1),
    "huge": 1e12 * random_spd(6, seed=2),
}


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


def rotated(*eigenvalues: float, seed: int = 6) -> th.Tensor:
    """A symmetric matrix with these eigenvalues, whose zeros are zeros only up to rounding."""
    size = len(eigenvalues)
    basis: th.Tensor = th.linalg.qr(th.randn(size, size, generator=th.Generator().manual_seed(seed), dtype=th.float64))[0]
    return basis @ vector(*eigenvalues).diag() @ basis.T


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


def search(
    evaluate: Callable[[float], Trial], max_iter: int = 10, shrinking_factor: float = 0.5, accept_ratio: float = 0.0
) -> tuple[LineSearchResult, list[float]]:
    """Search from L = 0 with gᵀs = 1 and δ = 0.01; also returns the fractions that were tried."""
    tried: list[float] = []

    def recorded(fraction: float) -> Trial:
        tried.append(fraction)
        return evaluate(fraction)

    return backtracking_line_search(recorded, 0.0, 1.0, 0.01, shrinking_factor, max_iter, accept_ratio), tried


def test_line_search_takes_the_full_step_of_a_linear_surrogate() -> None:
    result, tried = search(lambda t: Trial(t, 0.01 * t * t))
    assert tried == [1.0]
    assert result == LineSearchResult(1.0, Trial(1.0, 0.01), 1)


# each function has an interval of good fractions below a hard region; the answer is the first power of 1/2 inside it
HARD: dict[str, tuple[Callable[[float], Trial], float]] = {
    "overshoot": (lambda t: Trial(t - 3.0 * t * t, 0.0), 0.25),
    "cliff": (lambda t: Trial(t if t < 0.2 else -100.0, 0.0), 0.125),
    "kl_too_large": (lambda t: Trial(t, t * t), 0.0625),
    "kl_just_above": (lambda t: Trial(t, 0.01 + 1e-12 if t > 0.5 else 0.01), 0.5),
    "surrogate_nan_at_first": (lambda t: Trial(t if t < 0.3 else NAN, 0.0), 0.25),
    "surrogate_inf_at_first": (lambda t: Trial(t if t < 0.3 else INF, 0.0), 0.25),
    "kl_nan_at_first": (lambda t: Trial(t, 0.0 if t < 0.3 else NAN), 0.25),
    "kl_minus_inf_at_first": (lambda t: Trial(t, 0.0 if t < 0.3 else -INF), 0.25),
    "everything_nan_at_first": (lambda t: Trial(t, 0.0) if t < 0.1 else Trial(NAN, NAN), 0.0625),
    "oscillating": (lambda t: Trial(math.cos(math.pi / t), 0.0), 0.5),
}


@pytest.mark.parametrize("name", HARD)
def test_line_search_backs_off_to_the_first_good_fraction(name: str) -> None:
    evaluate, fraction = HARD[name]
    result, tried = search(evaluate)
    assert result == LineSearchResult(fraction, evaluate(fraction), len(tried))
    assert tried == [0.5**k for k in range(len(tried))]


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda t: Trial(-t, 0.0),
        lambda t: Trial(0.0, 0.0),  # no change is no gain
        lambda t: Trial(t, 1.0),
        lambda t: Trial(NAN, 0.0),
        lambda t: Trial(t, NAN),
        lambda t: Trial(INF, 0.0),
    ],
)
@pytest.mark.parametrize("max_iter", [1, 7])
def test_line_search_gives_up_after_the_last_trial(evaluate: Callable[[float], Trial], max_iter: int) -> None:
    result, tried = search(evaluate, max_iter)
    assert result == LineSearchResult(0.0, None, max_iter)
    assert len(tried) == max_iter


def test_line_search_accepts_a_kl_on_the_bound() -> None:
    assert search(lambda t: Trial(t, 0.01))[0].fraction == 1.0


@pytest.mark.parametrize(("accept_ratio", "fraction"), [(0.0, 1.0), (0.25, 1.0), (0.26, 0.5), (0.63, 0.25), (0.9, 0.125)])
def test_line_search_wants_its_share_of_the_promised_gain(accept_ratio: float, fraction: float) -> None:
    # L = t - 0.75 t² gains the share 1 - 0.75 t of what the linear model promises
    assert search(lambda t: Trial(t - 0.75 * t * t, 0.0), accept_ratio=accept_ratio)[0].fraction == fraction


@pytest.mark.parametrize("shrinking_factor", [0.01, 0.1, 0.8])
def test_line_search_shrinks_by_its_factor(shrinking_factor: float) -> None:
    _, tried = search(lambda t: Trial(-1.0, 0.0), 4, shrinking_factor)
    assert tried == pytest.approx([shrinking_factor**k for k in range(4)])


TRIALS = st.builds(Trial, st.floats(-2.0, 2.0) | st.sampled_from([NAN, INF, -INF, 0.0]), st.floats(0.0, 0.02) | st.just(NAN))


@PROPERTY
@given(trials=st.lists(TRIALS, min_size=1, max_size=8), accept_ratio=st.sampled_from([0.0, 0.3, 1.0]))
def test_line_search_returns_the_first_acceptable_trial_of_any_sequence(trials: list[Trial], accept_ratio: float) -> None:
    def acceptable(k: int, trial: Trial) -> bool:
        usable = trial.complete and math.isfinite(trial.surrogate) and math.isfinite(trial.kl)
        return usable and trial.kl <= 0.01 and trial.surrogate > 0.0 and trial.surrogate >= accept_ratio * 0.5**k

    sequence = iter(trials)
    result, tried = search(lambda _: next(sequence), len(trials), accept_ratio=accept_ratio)
    good = [k for k, trial in enumerate(trials) if acceptable(k, trial)]
    if good:
        assert result == LineSearchResult(0.5 ** good[0], trials[good[0]], good[0] + 1)
    else:
        assert result.trial is None
    assert len(tried) == result.trials


@dataclass
class Posed:
    """A problem whose parts are given one by one."""

    parameters: Sequence[th.Tensor]
    old: Trial
    gradient: Callable[[], th.Tensor]
    curvature: Callable[[th.Tensor], th.Tensor]
    independent_curvature: Callable[[th.Tensor], th.Tensor | None]
    trial: Callable[[], Trial]

    def evaluate(self, max_kl: float = INF) -> Trial:
        return self.trial()


class Problem:
    """L = gᵀ(θ - θ_old) - curvature/2 |θ - θ_old|² and D = 1/2 (θ - θ_old)ᵀ F (θ - θ_old), in two tensors."""

    def __init__(self, size: int = 6, seed: int = 0, curvature: float = 0.0, dtype: th.dtype = th.float64) -> None:
        start = random_vector(size, seed).to(dtype)
        self.parameters = [start[:4].view(2, 2).clone(), start[4:].clone()]
        self.old = start.clone()
        self.fisher = random_spd(size, seed + 1).to(dtype)
        self.gradient = random_vector(size, seed + 2).to(dtype)
        self.curvature = curvature
        self.evaluations = 0

    def evaluate(self) -> Trial:
        self.evaluations += 1
        moved = flatten(self.parameters) - self.old
        gain = th.dot(self.gradient, moved) - 0.5 * self.curvature * th.dot(moved, moved)
        # the bound is met exactly at the full step: keep rounding from deciding
        return Trial(gain.item(), 0.5 * th.dot(moved, self.fisher @ moved).item() * (1.0 - 1e-9))

    def step(
        self,
        evaluate: Callable[[], Trial] | None = None,
        surrogate_old: float = 0.0,
        other_product: Callable[[th.Tensor], th.Tensor] | None = None,
        **settings: float,
    ) -> StepReport:
        chosen = {"max_kl": 0.01, "damping": 0.0, "cg_tol": 1e-12, "shrinking_factor": 0.5, "accept_ratio": 0.0, **settings}
        counts = {name: int(chosen.pop(name, 20)) for name in ("cg_max_steps", "max_iter")}
        posed = Posed(
            self.parameters,
            Trial(surrogate_old, 0.0),
            lambda: self.gradient,
            self.fisher.mv,
            other_product or (lambda _: None),
            evaluate or self.evaluate,
        )
        return trust_region_step(posed, TrustRegionSettings(**chosen, **counts))  # type: ignore[arg-type]

    @property
    def moved(self) -> th.Tensor:
        return flatten(self.parameters) - self.old


@pytest.mark.parametrize("max_kl", [1e-6, 0.01, 10.0])
def test_step_is_the_closed_form(max_kl: float) -> None:
    problem = Problem()
    report = problem.step(max_kl=max_kl)
    direction = th.linalg.solve(problem.fisher, problem.gradient)
    expected = math.sqrt(2.0 * max_kl / th.dot(direction, problem.gradient).item()) * direction
    th.testing.assert_close(problem.moved, expected, rtol=1e-6, atol=1e-12)
    assert report.outcome is Outcome.ACCEPTED
    assert report.accepted
    assert report.kl == pytest.approx(max_kl, rel=1e-6)
    assert report.expected_gain == pytest.approx(report.surrogate_gain, rel=1e-6)
    assert (report.step_fraction, report.line_search_steps) == (1.0, 1)


@pytest.mark.parametrize("damping", [0.01, 1.0, 100.0])
def test_damping_turns_the_step_but_does_not_shorten_it(damping: float) -> None:
    problem = Problem()
    report = problem.step(damping=damping)
    direction = th.linalg.solve(problem.fisher + damping * th.eye(6, dtype=th.float64), problem.gradient)
    length = math.sqrt(0.02 / th.dot(direction, problem.fisher @ direction).item())
    th.testing.assert_close(problem.moved, length * direction, rtol=1e-6, atol=1e-12)
    assert report.kl == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(("factor", "shorter"), [(4.0, 0.5), (1.0, 1.0), (0.25, 1.0)])
def test_an_independent_estimate_may_shorten_the_step(factor: float, shorter: float) -> None:
    problem, same = Problem(), Problem()
    assert problem.step(other_product=lambda v: factor * problem.fisher @ v).accepted
    assert same.step().accepted
    th.testing.assert_close(problem.moved, shorter * same.moved)


def test_an_independent_estimate_that_is_not_finite_makes_no_step() -> None:
    problem = Problem()
    assert problem.step(other_product=lambda v: v * NAN).outcome is Outcome.NON_FINITE
    assert not problem.moved.any()


def test_no_product_follows_one_that_is_not_finite() -> None:
    problem, products = Problem(), []
    problem.fisher = problem.fisher * NAN
    report = problem.step(other_product=lambda v: products.append(v) or v)  # type: ignore[func-returns-value]
    assert report.outcome is Outcome.NON_FINITE
    assert report.cg_iterations == 1
    assert not products


@pytest.mark.parametrize(("scale", "spared"), [(1.0, True), (1e-3, True), (1e-6, False)])
@pytest.mark.parametrize("cg_max_steps", [2, 20])
def test_the_length_costs_no_product_unless_damping_drowns_the_fisher_matrix(
    scale: float, spared: bool, cg_max_steps: int
) -> None:
    problem = Problem(dtype=th.float32)
    products = 0

    def product(v: th.Tensor) -> th.Tensor:
        nonlocal products
        products += 1
        return scale * problem.fisher @ v

    counted = TrustRegionSettings(0.01, 0.1, cg_max_steps, 1e-5, 0.5, 1, 0.0)
    posed = Posed(
        problem.parameters, Trial(0.0, 0.0), lambda: problem.gradient, product, lambda _: None, lambda: Trial(1.0, 0.0)
    )
    report = trust_region_step(posed, counted)
    assert report.accepted
    assert products == report.cg_iterations + (not spared)
    step = problem.moved.double()
    assert 0.5 * th.dot(step, scale * problem.fisher.double() @ step).item() == pytest.approx(0.01, rel=2e-3)


@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    max_kl=st.floats(1e-8, 10.0),
    damping=st.floats(0.0, 10.0),
    curvature=st.floats(0.0, 1e3),
    shrinking_factor=st.floats(0.01, 0.95),
    cg_max_steps=st.integers(1, 10),
    max_iter=st.integers(1, 12),
    accept_ratio=st.floats(0.0, 1.0),
)
def test_step_keeps_its_promises_or_leaves_every_bit(
    seed: int,
    max_kl: float,
    damping: float,
    curvature: float,
    shrinking_factor: float,
    cg_max_steps: int,
    max_iter: int,
    accept_ratio: float,
) -> None:
    problem = Problem(seed=seed, curvature=curvature)
    report = problem.step(
        max_kl=max_kl,
        damping=damping,
        shrinking_factor=shrinking_factor,
        cg_max_steps=cg_max_steps,
        max_iter=max_iter,
        accept_ratio=accept_ratio,
    )
    if report.accepted:
        after = problem.evaluate()
        assert after.kl <= max_kl
        assert after.surrogate > 0.0
        assert after == Trial(report.surrogate, report.kl)
        assert report.surrogate_gain >= accept_ratio * report.step_fraction * report.expected_gain
        assert report.step_fraction == pytest.approx(shrinking_factor ** (report.line_search_steps - 1))
    else:
        assert same_bits(flatten(problem.parameters), problem.old)
        assert (report.kl, report.surrogate_gain, report.step_fraction) == (0.0, 0.0, 0.0)
        assert report.surrogate == 0.0


def test_step_backtracks_where_the_quadratic_model_is_wrong() -> None:
    problem = Problem()

    def stiffer() -> Trial:
        trial = problem.evaluate()
        return trial._replace(kl=5.0 * trial.kl)  # fractions up to 1/√5 keep the bound

    report = problem.step(stiffer)
    assert (report.step_fraction, report.line_search_steps) == (0.25, 3)
    assert report.kl == pytest.approx(5.0 * 0.01 / 16.0, rel=1e-6)


def test_one_cg_step_follows_the_gradient() -> None:
    problem = Problem()
    problem.fisher = vector(1.0, 1.0, 1.0, 1.0, 1.0, 100.0).diag()
    problem.gradient = vector(3.0, 3.0, 3.0, 3.0, 3.0, 1.0)
    assert problem.step(cg_max_steps=1).accepted
    assert th.cosine_similarity(problem.moved, problem.gradient, dim=0).item() == pytest.approx(1.0)


def strange_parameters(dtype: th.dtype) -> th.Tensor:
    """Values that arithmetic would not give back: two NaN with payloads, both infinities, -0.0, a subnormal."""
    bits = {th.float32: (th.int32, 0x7FC12345, -0x3EDCBB), th.float64: (th.int64, 0x7FF8123456789ABC, -0x7EDCBA987654)}
    integer, payload, negative_payload = bits[dtype]
    nans = th.tensor([payload, negative_payload], dtype=integer).view(dtype)
    assert nans.isnan().all()
    return th.cat([nans, th.tensor([INF, -INF, -0.0, 1e-42 if dtype == th.float32 else 5e-324], dtype=dtype)])


def raises(error: BaseException) -> Callable[[Problem], Trial]:
    def evaluate(problem: Problem) -> Trial:
        raise error

    return evaluate


FAILURES: dict[str, Callable[[Problem], Trial]] = {
    "never_improves": lambda problem: Trial(-1.0, 0.0),
    "kl_too_large": lambda problem: Trial(1.0, 1.0),
    "nan": lambda problem: Trial(NAN, NAN),
    "inf": lambda problem: Trial(INF, INF),
    "exception": raises(RuntimeError("out of memory")),
    "ctrl_c": raises(KeyboardInterrupt()),
    "exit": raises(SystemExit()),
}


@pytest.mark.parametrize("good_until", [1, 3])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_step_leaves_every_bit_of_the_parameters(name: str, dtype: th.dtype, good_until: int) -> None:
    problem = Problem(dtype=dtype)
    old = strange_parameters(dtype)
    problem.parameters = [old[:4].view(2, 2).clone(), old[4:].clone()]
    trials: list[bool] = []

    def evaluate() -> Trial:
        trials.append(same_bits(flatten(problem.parameters), old))
        return FAILURES[name](problem) if len(trials) >= good_until else Trial(-1.0, 0.0)

    raised: BaseException | None = None
    try:
        report = problem.step(evaluate)
        assert report.outcome is Outcome.LINE_SEARCH_FAILED
    except (RuntimeError, KeyboardInterrupt, SystemExit) as error:
        raised = error
    assert (raised is not None) == (name in {"exception", "ctrl_c", "exit"})
    assert len(trials) >= good_until
    assert not any(trials)  # every trial had moved them
    assert same_bits(flatten(problem.parameters), old)


def test_zero_gradient_is_no_step_and_costs_nothing() -> None:
    def never(*_: th.Tensor) -> th.Tensor:
        raise AssertionError("was called")

    parameters = [th.ones(3)]
    settings = TrustRegionSettings(0.01, 0.1, 10, 0.1, 0.8, 10, 0.0)
    posed = Posed(parameters, Trial(1.5, 0.0), lambda: th.zeros(3), never, never, never)  # type: ignore[arg-type]
    report = trust_region_step(posed, settings)
    assert report == StepReport(Outcome.ZERO_GRADIENT, 1.5)
    assert parameters[0].tolist() == [1.0] * 3


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["gradient", "surrogate_old", "fisher", "fisher_later"])
def test_anything_not_finite_before_the_search_is_no_step(where: str, value: float) -> None:
    problem = Problem()
    surrogate_old = value if where == "surrogate_old" else 0.0
    if where == "gradient":
        problem.gradient[2] = value
    if where == "fisher":
        problem.fisher[0, 0] = value
    if where == "fisher_later":
        clean, calls = problem.fisher.clone(), []

        class Spoilt:
            def mv(self, v: th.Tensor) -> th.Tensor:
                calls.append(1)
                return clean @ v if len(calls) < 3 else th.full_like(v, value)

        problem.fisher = Spoilt()  # type: ignore[assignment]
    report = problem.step(surrogate_old=surrogate_old)
    assert report.outcome is Outcome.NON_FINITE
    assert problem.evaluations == 0
    assert same_bits(flatten(problem.parameters), problem.old)
    assert (report.kl, report.surrogate_gain, report.step_fraction) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_no_positive_curvature_is_no_step(scale: float) -> None:
    problem = Problem()
    problem.fisher *= scale
    report = problem.step()
    assert report.outcome is Outcome.NON_POSITIVE_CURVATURE
    assert problem.evaluations == 0
    assert same_bits(flatten(problem.parameters), problem.old)


def test_step_uses_no_global_random_generator() -> None:
    before = generator_states()
    assert Problem().step().accepted
    assert not Problem().step(lambda: Trial(-1.0, 0.0)).accepted
    assert generator_states() == before


def test_report_is_frozen() -> None:
    with pytest.raises(AttributeError):
        StepReport(Outcome.ACCEPTED, 0.0).kl = 1.0  # type: ignore[misc]


class Still(RandomEnv):
    """One step an episode, always the same observation and reward: nothing to learn from."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(-1.0, 1.0, (3,), dtype=np.float32), spaces.Discrete(2), length=1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        return np.zeros(3, dtype=np.float32), {}

    def step(self, action: object) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        super().step(action)
        return np.zeros(3, dtype=np.float32), 1.0, True, False, {}


def test_trpo_reports_the_outcomes_that_need_no_step() -> None:
    def outcome(env: RandomEnv, freeze: bool = False, target_kl: float | Callable[[float], float] = 0.01) -> Outcome:
        model = TRPO("MlpPolicy", env, n_steps=16, batch_size=16, n_critic_updates=1, seed=0, target_kl=target_kl)
        for name, parameter in model.policy.named_parameters():
            parameter.requires_grad_("value" in name or not freeze)
        before = {name: value.clone() for name, value in model.policy.state_dict().items() if "value" not in name}
        model.learn(16)
        assert all(th.equal(model.policy.state_dict()[name], value) for name, value in before.items())
        assert model.last_step is not None
        return model.last_step.outcome

    assert outcome(Still()) is Outcome.ZERO_SIGNAL
    assert outcome(RandomEnv(), freeze=True) is Outcome.NO_PARAMETERS
    assert outcome(RandomEnv(), target_kl=lambda _: 0.0) is Outcome.NO_TRUST_REGION

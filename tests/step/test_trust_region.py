"""The whole step, on problems with known solutions."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_trpo.step.conjugate_gradient import CGOutcome
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.report import Outcome, StepReport, Trial
from sb3_trpo.step.trust_region import TrustRegionSettings, trust_region_step
from tests.helpers import generator_states, same_bits
from tests.step.problems import (
    INF,
    NAN,
    PROPERTY,
    random_spd,
    random_vector,
    vector,
)


@dataclass
class Posed:
    """A problem made of given parts."""

    parameters: Sequence[th.Tensor]
    old: Trial
    gradient: Callable[[], th.Tensor]
    curvature: Callable[[th.Tensor], th.Tensor]
    independent_curvature: Callable[[th.Tensor], th.Tensor | None]
    trial: Callable[[], Trial]
    scale: float = 1.0

    def penalized_gradient(self, kl_coef: float) -> th.Tensor:
        raise AssertionError("the trust region has no penalty")

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        return step * self.scale

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
def test_the_length_costs_no_product_unless_damping_dominates_the_fisher_matrix(
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
def test_step_keeps_the_bound_and_gains_or_changes_no_bit(
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
    """Values that arithmetic would not restore: two NaN with payloads, both infinities, -0.0, a subnormal."""
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


SETTINGS = {
    "max_kl": 0.01,
    "damping": 0.1,
    "cg_max_steps": 10,
    "cg_tol": 0.1,
    "shrinking_factor": 0.8,
    "max_iter": 10,
    "accept_ratio": 0.0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_kl", value) for value in (0.0, -1.0, NAN, INF, None, True, "0.1")),
        *(("damping", value) for value in (-1e-9, NAN, INF)),
        *(("cg_max_steps", value) for value in (0, 1.5, -3)),
        *(("cg_tol", value) for value in (-0.1, 1.0, NAN)),
        *(("shrinking_factor", value) for value in (0.0, 1.0, 1.5, NAN)),
        *(("max_iter", value) for value in (0, 2.0)),
        *(("accept_ratio", value) for value in (-0.1, 1.1, NAN)),
    ],
)
def test_bad_settings_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be .*, not {re.escape(repr(value))}"):
        TrustRegionSettings(**{**SETTINGS, name: value})  # type: ignore[arg-type]


def test_good_settings_are_kept() -> None:
    assert TrustRegionSettings(**SETTINGS).shrinking_factor == 0.8  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [({}, CGOutcome.TOLERANCE_REACHED), ({"cg_max_steps": 2}, CGOutcome.STEPS_USED_UP)],
)
def test_the_report_says_why_the_solver_stopped(settings: dict[str, Any], outcome: CGOutcome) -> None:
    report = Problem().step(**settings)
    assert report.accepted
    assert report.cg_outcome is outcome


def test_a_step_without_a_solver_says_so() -> None:
    problem = Problem()
    problem.gradient = th.zeros(6, dtype=th.float64)
    assert problem.step().cg_outcome is None

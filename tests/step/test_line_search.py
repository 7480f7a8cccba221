"""The line search takes the first acceptable fraction of any sequence of trials."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_trpo.step.line_search import LineSearchResult, backtracking_line_search
from sb3_trpo.step.report import Trial
from tests.step.problems import (
    INF,
    NAN,
    PROPERTY,
)


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

"""The statistics of scores, on known answers."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.common.scores import (
    bootstrap,
    difference,
    half_width,
    holm,
    interquartile_mean,
    interquartile_mean_over,
    mean_improvement,
    probability_of_improvement,
    scaled,
    welch,
)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])) == 3.5


def test_environments_count_equally_however_many_seeds_they_have() -> None:
    few, many = np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    weighed = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *many])
    assert interquartile_mean_over([few, many]) == interquartile_mean(weighed)
    assert interquartile_mean_over([few, many]) != interquartile_mean(np.concatenate([few, many]))


def test_probability_of_improvement_counts_ties_half() -> None:
    assert probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875
    assert mean_improvement([np.ones(3), np.ones(3), np.zeros(3), np.full(3, 2.0)]) == 0.5


def test_bootstrap_interval_holds_the_mean_and_shrinks_with_more_seeds() -> None:
    rng = np.random.default_rng(1)
    few, many = (bootstrap(lambda strata: float(strata[0].mean()), [rng.standard_normal(n)]) for n in (10, 1000))
    assert few[0] < 0.0 < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)


def test_difference_and_scale_tell_the_sides_apart() -> None:
    ours, peer = [np.array([4.0, 4.0, 4.0]), np.array([30.0, 30.0])], [np.array([1.0, 3.0]), np.array([10.0, 10.0, 10.0])]
    scores = scaled([*ours, *peer], 2)
    assert [part.tolist() for part in scores] == [[2.0, 2.0, 2.0], [3.0, 3.0], [0.5, 1.5], [1.0, 1.0, 1.0]]
    assert difference(scores) == 2.5 - 1.0
    assert difference(scores[2:] + scores[:2]) == 1.0 - 2.5


def test_bootstrap_resamples_the_seeds_of_each_stratum_and_the_scale_with_them() -> None:
    strata = [np.array([2.0, 2.0]), np.array([1.0, 3.0])]
    seen: list[tuple[float, ...]] = []

    def means(drawn: list[np.ndarray]) -> float:
        seen.append(tuple(part.mean() for part in drawn))
        return 0.0

    bootstrap(means, strata)
    assert set(seen) == {(2.0, 1.0), (2.0, 2.0), (2.0, 3.0)}
    low, high = bootstrap(lambda drawn: float(scaled(drawn, 1)[0].mean()), strata)
    assert (low, high) == (2.0 / 3.0, 2.0)


def test_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    ours, peer = rng.integers(0, 5, 10).astype(float), rng.integers(0, 5, 6).astype(float)
    expected = stats.mannwhitneyu(ours, peer).statistic / (len(ours) * len(peer))
    assert probability_of_improvement(ours, peer) == pytest.approx(expected)


def test_half_width_is_that_of_student() -> None:
    # one degree of freedom is Cauchy's distribution: its quantile at 0.975 is tan(0.475 pi)
    expected = np.tan(0.475 * np.pi)
    np.testing.assert_allclose(half_width(np.array([[1.0, 5.0], [3.0, 5.0]])), [expected, 0.0])


def test_welch_of_equal_samples_is_symmetric_around_no_difference() -> None:
    scores = np.array([1.0, 2.0, 4.0])
    middle, low, high = welch(scores, scores)
    assert middle == 0.0
    assert low == pytest.approx(-high)
    assert welch(scores + 5.0, scores) == pytest.approx((5.0, low + 5.0, high + 5.0))


def test_holm_multiplies_by_the_number_of_tests_that_are_left() -> None:
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []

"""Statistics of single runs and of their spread, on known answers."""

import numpy as np
import pytest

from benchmarks.common.reliability import (
    draw_profile,
    drawdown,
    last_evaluations,
    optimality_gap,
    performance_profile,
    steps_to,
    worst_fifth,
)
from benchmarks.common.runs import Curve


def curve(*returns: float) -> Curve:
    steps = 10.0 * np.arange(1.0, len(returns) + 1.0)
    return Curve(steps, np.array(returns), steps, steps)


@pytest.mark.parametrize(("scores", "worst"), [([3.0], 3.0), ([4.0, 1.0, 9.0], 1.0), ([*range(10, 0, -1)], 1.5)])
def test_the_worst_fifth_has_at_least_one_seed(scores: list[float], worst: float) -> None:
    assert worst_fifth(np.array(scores)) == worst


def test_the_last_evaluations_leave_out_that_of_the_final_model() -> None:
    assert last_evaluations(curve(*range(15))).tolist() == [*range(4, 14)]
    assert last_evaluations(curve(1.0, 2.0)).tolist() == [1.0]


def test_a_fall_is_measured_from_the_best_evaluation() -> None:
    assert drawdown(curve(1.0, 5.0, 3.0)) == 2.0
    assert drawdown(curve(1.0, 2.0, 3.0)) == 0.0


def test_steps_to_a_fraction_of_the_final_return() -> None:
    assert steps_to(curve(1.0, 8.9, 9.0, 3.0, 10.0), 0.9) == 30.0


def test_gap_and_profile_weigh_environments_equally() -> None:
    strata = [np.array([0.5, 1.5]), np.array([0.0, 2.0, 2.0, 2.0])]
    assert optimality_gap(strata) == pytest.approx((0.25 + 0.25) / 2)
    assert performance_profile(strata, np.array([-1.0, 0.0, 1.0, 2.0])).tolist() == [1.0, 0.875, 0.625, 0.0]


def test_a_profile_is_a_line_for_each_side() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    draw_profile(axis, {"sb3_trpo": [np.array([0.5, 1.5])], "sb3_ppo": [np.array([0.5])]}, np.array([0.0, 1.0]))
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axis.get_lines()}
    assert lines == {"sb3-trpo": [1.0, 0.5], "SB3 PPO": [1.0, 0.0]}

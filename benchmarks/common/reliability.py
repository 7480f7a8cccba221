"""Compute how far single runs can be trusted: bad seeds, falls within a run, and the spread over runs and environments."""

from typing import Any

import numpy as np

from benchmarks.common.arms import COLOURS, LABELS
from benchmarks.common.runs import Curve

LAST = 10
"""Evaluations at the end of a run whose mean stands beside the final model's return."""


def worst_fifth(scores: np.ndarray) -> float:
    """
    Average the lowest fifth of the seeds, at least one.

    :param scores: one a seed
    :return: the mean
    """
    return float(np.sort(scores)[: max(1, round(len(scores) / 5))].mean())


def last_evaluations(curve: Curve) -> np.ndarray:
    """
    Take the evaluations at the end of a run, without that of the final model, which has more episodes.

    :param curve: of the run
    :return: at most :data:`LAST` returns
    """
    return curve.returns[:-1][-LAST:]


def drawdown(curve: Curve) -> float:
    """
    Subtract the final model's return from the best evaluation's.

    :param curve: of the run
    :return: how far the run has fallen, at least 0
    """
    return float(curve.returns.max() - curve.returns[-1])


def steps_to(curve: Curve, fraction: float) -> float:
    """
    Find when a run first reaches a fraction of what its final model has, whose return must be positive.

    :param curve: of the run
    :param fraction: of the final return
    :return: env steps
    """
    return float(curve.steps[np.argmax(curve.returns >= fraction * curve.returns[-1])])


def optimality_gap(strata: list[np.ndarray]) -> float:
    """
    Average what the scores lack to 1, where environments count equally (https://arxiv.org/abs/2108.13264, section 4.3).

    :param strata: scaled scores of one side, one array an environment
    :return: the gap; 0 if every score is at least 1
    """
    return float(np.mean([np.maximum(0.0, 1.0 - scores).mean() for scores in strata]))


def performance_profile(strata: list[np.ndarray], levels: np.ndarray) -> np.ndarray:
    """
    Compute the share of runs above each level, where environments count equally (the same paper, section 4.2).

    :param strata: scaled scores of one side, one array an environment
    :param levels: shape (L,)
    :return: shares, shape (L,)
    """
    return np.asarray(np.mean([(scores[:, None] > levels).mean(axis=0) for scores in strata], axis=0))


def draw_profile(axis: Any, sides: dict[str, list[np.ndarray]], levels: np.ndarray) -> None:
    """
    Draw the performance profile of every side.

    :param axis: to draw on
    :param sides: scaled scores by environment, of each side by its name
    :param levels: shape (L,)
    """
    for name, strata in sides.items():
        axis.plot(levels, performance_profile(strata, levels), color=COLOURS[name], label=LABELS[name])
    axis.set(xlabel="score: 1 is the mean of sb3-contrib's TRPO", ylabel="share of runs above the score", ylim=(0.0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend()

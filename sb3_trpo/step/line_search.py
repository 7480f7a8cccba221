"""Backtracking line search: the longest fraction of a step that keeps the bound and improves."""

import math
from collections.abc import Callable
from typing import NamedTuple

from sb3_trpo.step.report import Trial


class LineSearchResult(NamedTuple):
    """
    Tells where backtracking stopped.

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

    A fraction t is accepted if L and D are complete and finite, D <= ``max_kl``, L > ``surrogate_old`` and
    L - ``surrogate_old`` >= ``accept_ratio`` * t * ``expected_gain``. Source: appendix C of the paper
    (https://arxiv.org/abs/1502.05477).

    :param evaluate: fraction -> surrogate and KL
    :param surrogate_old: L at fraction 0
    :param expected_gain: gᵀs, the gain that the linear model promises for the full step s
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
        usable = trial.complete and math.isfinite(trial.surrogate) and math.isfinite(trial.kl)
        if usable and trial.kl <= max_kl and gain > 0.0 and gain >= accept_ratio * fraction * expected_gain:
            return LineSearchResult(fraction, trial, trials)
        fraction *= shrinking_factor
    return LineSearchResult(0.0, None, max_iter)

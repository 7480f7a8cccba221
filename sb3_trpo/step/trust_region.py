"""The trust-region step: the natural gradient, scaled to the KL bound, as far as a line search accepts it."""

from dataclasses import dataclass

import torch as th

from sb3_trpo.checks import NOT_NEGATIVE, POSITIVE, UNIT, check, integer, number
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.line_search import LineSearchResult, backtracking_line_search
from sb3_trpo.step.natural_direction import natural_direction
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import Outcome, StepReport, Trial

RULES = {
    "max_kl": POSITIVE,
    "damping": NOT_NEGATIVE,
    "cg_max_steps": integer(1),
    "cg_tol": number("in [0, 1)", lambda v: 0.0 <= v < 1.0),
    "shrinking_factor": number("in (0, 1)", lambda v: 0.0 < v < 1.0),
    "max_iter": integer(1),
    "accept_ratio": UNIT,
}
"""The allowed values of each setting."""


@dataclass(frozen=True)
class TrustRegionSettings:
    """
    Holds what the user chooses of the step.

    :param max_kl: δ (``target_kl``), nats
    :param damping: ``cg_damping``, added to the diagonal of F while solving
    :param cg_max_steps: most Fisher-vector products of the solver
    :param cg_tol: relative residual at which the solver stops
    :param shrinking_factor: ρ of the line search
    :param max_iter: most trials of the line search
    :param accept_ratio: least share of the promised gain
    :raises ValueError: if one is out of range, naming it
    """

    max_kl: float
    damping: float
    cg_max_steps: int
    cg_tol: float
    shrinking_factor: float
    max_iter: int
    accept_ratio: float

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            check(name, getattr(self, name), rule)


def trust_region_step(problem: Problem, settings: TrustRegionSettings) -> StepReport:
    """
    Move the parameters along the natural gradient, scaled to the KL bound, as far as the line search accepts.

    If nothing is accepted, or if anything is raised, the saved parameters are copied back bit for bit.

    Source: section 6 and appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param problem: what to solve
    :param settings: what the user chose
    :return: what happened
    """
    direction = natural_direction(problem, settings)
    if isinstance(direction, StepReport):
        return direction
    search = _search_along(problem, direction.step, direction.expected_gain, settings)
    outcome = Outcome.ACCEPTED if search.trial else Outcome.LINE_SEARCH_FAILED
    return direction.report(outcome, search.trial, search.fraction, search.trials)


def _search_along(problem: Problem, step: th.Tensor, expected_gain: float, settings: TrustRegionSettings) -> LineSearchResult:
    """Leave the parameters at the first accepted fraction of the step, or else, and if anything is raised, as they were."""
    parameters, old = problem.parameters, flatten(problem.parameters)

    def evaluate_at(fraction: float) -> Trial:
        assign(parameters, old + fraction * step)
        return problem.evaluate(settings.max_kl)

    accepted = False
    try:
        search = backtracking_line_search(
            evaluate_at,
            problem.old.surrogate,
            expected_gain,
            settings.max_kl,
            settings.shrinking_factor,
            settings.max_iter,
            settings.accept_ratio,
        )
        accepted = search.trial is not None
    finally:
        if not accepted:
            assign(parameters, old)
    return search

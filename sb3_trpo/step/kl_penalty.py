"""The KL penalty: the maximum of L - λ D in place of a bound on D, with a fixed or an adaptive λ."""

from dataclasses import dataclass

from sb3_trpo.checks import BOOLEAN, POSITIVE, Rule, check, optional
from sb3_trpo.step.penalized_ascent import Ascent, AscentSettings
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import StepReport, UnboundedReport

KL_COEF: Rule = optional(POSITIVE)
"""The allowed values of ``kl_coef``."""

_DEAD_ZONE = 1.5
"""Factor by which the KL may miss its target, both ways, before λ changes."""
_FACTOR = 2.0
"""Factor by which λ changes."""
_LEAST, _LARGEST = 1e-8, 1e8
"""Bounds of λ, so that a long run of steps on one side does not make it 0 or infinite."""


@dataclass(frozen=True)
class KLPenaltySettings(AscentSettings):
    """
    The user's settings of the step.

    :param adaptive: whether λ follows the realised KL
    :raises ValueError: if one is out of range, naming it
    """

    adaptive: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check("kl_coef", self.kl_coef, KL_COEF)
        check("adaptive", self.adaptive, BOOLEAN)


def kl_penalty_step(problem: Problem, settings: KLPenaltySettings) -> StepReport:
    """
    Maximise L - λ D by ascent steps. No bound holds: the KL may exceed δ.

    If no step raises L - λ D, or if anything is raised, the saved parameters are copied back bit for bit, and λ stays.

    Source: equation 8 of the PPO paper (https://arxiv.org/abs/1707.06347).

    :param problem: what to solve
    :param settings: the user's settings
    :return: what happened, an :class:`~sb3_trpo.step.report.UnboundedReport`
    """
    ascent = Ascent(problem, settings)
    kl_coef = ascent.dual_kl_coef if settings.kl_coef is None else settings.kl_coef
    if kl_coef is None:
        return UnboundedReport.of(ascent.climb(1.0, 1.0), settings.max_kl)
    report = ascent.climb(kl_coef, kl_coef)
    adapts = settings.adaptive and report.accepted
    next_kl_coef = adapted_kl_coef(kl_coef, report.kl, settings.max_kl) if adapts else kl_coef
    return UnboundedReport.of(report, settings.max_kl, kl_coef, next_kl_coef)


def adapted_kl_coef(kl_coef: float, kl: float, target_kl: float) -> float:
    """
    Double λ if the KL exceeds 1.5 δ, halve it if the KL is below δ / 1.5.

    Source: section 4 of the PPO paper (https://arxiv.org/abs/1707.06347).

    :param kl_coef: λ of the step
    :param kl: D after the step, nats
    :param target_kl: δ, nats
    :return: λ of the next step
    """
    if kl > _DEAD_ZONE * target_kl:
        return min(_LARGEST, _FACTOR * kl_coef)
    if kl < target_kl / _DEAD_ZONE:
        return max(_LEAST, kl_coef / _FACTOR)
    return kl_coef

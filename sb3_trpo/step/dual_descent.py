"""Dual gradient descent: alternate ascent on the Lagrangian L - λ (D - δ) and descent of the dual function in λ."""

from dataclasses import dataclass

from sb3_trpo.checks import POSITIVE, check
from sb3_trpo.step.penalized_ascent import Ascent, AscentSettings
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import StepReport, UnboundedReport


@dataclass(frozen=True)
class DualDescentSettings(AscentSettings):
    """
    The user's settings of the step.

    :param dual_learning_rate: α of the step in λ, advantage per nat²
    :raises ValueError: if one is out of range, naming it
    """

    dual_learning_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check("dual_learning_rate", self.dual_learning_rate, POSITIVE)


def dual_descent_step(problem: Problem, settings: DualDescentSettings) -> StepReport:
    """
    Take ascent steps on L - λ (D - δ), then move λ by α (D - δ). No bound holds: the KL may exceed δ.

    At a λ below λ*, the quadratic model's steps would be longer than the trust region, without limit at λ = 0. There, the
    length is that of λ*. If no step raises the Lagrangian, or if anything is raised, the saved parameters are copied back bit
    for bit, and λ stays.

    Source: section 5.5.5 of Boyd and Vandenberghe, Convex Optimization; λ* follows appendix C of the TRPO paper
    (https://arxiv.org/abs/1502.05477).

    :param problem: what to solve
    :param settings: the user's settings
    :return: what happened, an :class:`~sb3_trpo.step.report.UnboundedReport`
    """
    ascent = Ascent(problem, settings)
    dual_kl_coef = ascent.dual_kl_coef
    if dual_kl_coef is None:
        return UnboundedReport.of(ascent.climb(1.0, 1.0), settings.max_kl, settings.kl_coef, settings.kl_coef)
    kl_coef = dual_kl_coef if settings.kl_coef is None else settings.kl_coef
    report = ascent.climb(kl_coef, max(kl_coef, dual_kl_coef))
    next_kl_coef = kl_coef
    if report.accepted:
        next_kl_coef = dual_kl_coef_after(kl_coef, report.kl, settings.max_kl, settings.dual_learning_rate)
    return UnboundedReport.of(report, settings.max_kl, kl_coef, next_kl_coef)


def dual_kl_coef_after(kl_coef: float, kl: float, target_kl: float, dual_learning_rate: float) -> float:
    """
    Move λ against the gradient of the dual function, and keep it from becoming negative.

    :param kl_coef: λ of the step
    :param kl: D after the step, nats
    :param target_kl: δ, nats
    :param dual_learning_rate: α
    :return: max(0, λ + α (D - δ))
    """
    return max(0.0, kl_coef + dual_learning_rate * (kl - target_kl))

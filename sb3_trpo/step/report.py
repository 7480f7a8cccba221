"""The results of a step: its trials, its outcome and its report."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum
from typing import NamedTuple

from sb3_trpo.step.conjugate_gradient import CGOutcome


class Outcome(Enum):
    """The way in which a step ended, in words."""

    ACCEPTED = "accepted"
    GATHERING = "no step: the first rollouts gather the statistics of the observations and fit the critic"
    ZERO_SIGNAL = "no step: all advantages are equal but for rounding"
    ZERO_GRADIENT = "no step: the surrogate's gradient is zero"
    NO_TRUST_REGION = "no step: the KL bound is zero"
    NO_PARAMETERS = "no step: no trainable parameter reaches the action distribution"
    NON_POSITIVE_CURVATURE = "no step: the Fisher matrix has no positive curvature along the step"
    NON_FINITE = "no step: the gradient or a Fisher-vector product is not finite"
    TRIAL_NOT_FINITE = "no step: the surrogate or the KL after it is not finite"
    NO_ASCENT = "no step: no trial raised the penalised surrogate"
    LINE_SEARCH_FAILED = "no step: no trial kept the KL bound and raised the surrogate"


class Trial(NamedTuple):
    """
    Surrogate and constraint at one point.

    :param surrogate: L(θ); NaN if the evaluation is not complete
    :param kl: D(θ), nats; a lower bound on it if the evaluation is not complete
    :param complete: whether every state was evaluated; False if the KL of some already exceeded the bound
    """

    surrogate: float
    kl: float
    complete: bool = True


@dataclass(frozen=True)
class StepReport:
    """
    The report of one policy step. If no step was accepted, KL, gain and fraction are 0: the parameters did not change.

    :param outcome: how it ended
    :param surrogate: L after the step
    :param surrogate_gain: L(θ) - L(θ_old)
    :param expected_gain: gᵀs of the full step
    :param kl: D after the step, nats
    :param step_fraction: accepted fraction of the full step
    :param line_search_steps: number of trials of the line search
    :param cg_iterations: number of Fisher-vector products of the solver
    :param cg_residual: relative residual of its solution
    :param cg_outcome: why the solver stopped; None if it was not called
    """

    outcome: Outcome
    surrogate: float
    surrogate_gain: float = 0.0
    expected_gain: float = 0.0
    kl: float = 0.0
    step_fraction: float = 0.0
    line_search_steps: int = 0
    cg_iterations: int = 0
    cg_residual: float = 0.0
    cg_outcome: CGOutcome | None = None

    @property
    def accepted(self) -> bool:
        """Tell whether the parameters moved."""
        return self.outcome is Outcome.ACCEPTED


@dataclass(frozen=True)
class UnboundedReport(StepReport):
    """
    The report of a rule that aims at a KL but does not bound it.

    :param target_kl: δ, the KL that the rule aims at, nats
    :param kl_coef: λ, the coefficient of the KL in this step, advantage per nat; None if the rule has none
    :param next_kl_coef: λ of the next update
    """

    target_kl: float = math.inf
    kl_coef: float | None = None
    next_kl_coef: float | None = None

    @property
    def kl_over_target(self) -> bool:
        """Tell whether the KL of the step exceeds δ."""
        return self.kl > self.target_kl

    @classmethod
    def of(
        cls, report: StepReport, target_kl: float, kl_coef: float | None = None, next_kl_coef: float | None = None
    ) -> UnboundedReport:
        """
        Extend a report.

        :param report: how the step ended
        :param target_kl: δ, nats
        :param kl_coef: λ of the step
        :param next_kl_coef: λ of the next update
        :return: the extended report
        """
        plain = {field.name: getattr(report, field.name) for field in fields(StepReport)}
        return cls(**plain, target_kl=target_kl, kl_coef=kl_coef, next_kl_coef=next_kl_coef)

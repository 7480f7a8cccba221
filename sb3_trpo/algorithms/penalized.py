"""The part that the classes with a coefficient of the KL share."""

from typing import Any

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.checks import check
from sb3_trpo.step.penalized_ascent import N_STEPS
from sb3_trpo.step.report import StepReport, UnboundedReport


class PenalizedTRPO(TRPO):
    """Keeps the coefficient λ of the KL from update to update. A subclass sets the attributes before it calls ``__init__``."""

    kl_coef: float | None
    """λ of the next update, advantage per nat; None: that of the quadratic model."""
    n_policy_updates: int
    """Ascent steps of the policy per rollout."""

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("n_policy_updates", self.n_policy_updates, N_STEPS)

    def _step_policy(self, *args: Any) -> StepReport:
        report = super()._step_policy(*args)
        if isinstance(report, UnboundedReport):
            self.kl_coef = report.next_kl_coef
        return report

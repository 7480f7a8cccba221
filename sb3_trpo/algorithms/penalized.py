"""The part that the classes with a coefficient of the KL share."""

from typing import Any

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.checks import check
from sb3_trpo.step.penalized_ascent import N_STEPS
from sb3_trpo.step.report import StepReport, UnboundedReport


class PenalizedTRPO(TRPO):
    """
    Keeps the coefficient λ of the KL from update to update.

    :param args: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`, in the same order
    :param kl_coef: λ of the next update, advantage per nat; None: that of the quadratic model
    :param n_policy_updates: ascent steps of the policy per rollout
    :param kwargs: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` by name; ``scale_target_kl`` is False by default
    """

    def __init__(self, *args: Any, kl_coef: float | None, n_policy_updates: int, **kwargs: Any) -> None:
        self.kl_coef = kl_coef
        self.n_policy_updates = n_policy_updates
        # λ adapts to one target, not to one for each rollout
        super().__init__(*args, **{"scale_target_kl": False, **kwargs})

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("n_policy_updates", self.n_policy_updates, N_STEPS)

    def _step_policy(self, *args: Any) -> StepReport:
        report = super()._step_policy(*args)
        if isinstance(report, UnboundedReport):
            self.kl_coef = report.next_kl_coef
        return report

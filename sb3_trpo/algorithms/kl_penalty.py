"""TRPO's penalised form: a coefficient of the KL in place of the bound."""

from dataclasses import asdict
from typing import Any

from sb3_trpo.algorithms.penalized import PenalizedTRPO
from sb3_trpo.checks import BOOLEAN, check
from sb3_trpo.step.kl_penalty import KL_COEF, KLPenaltySettings, kl_penalty_step


class KLPenaltyTRPO(PenalizedTRPO):
    """
    Maximises the surrogate minus λ times the mean KL, instead of bounding the KL.

    Each update climbs L(θ) - λ D(θ) on the whole rollout by natural gradient steps with a line search on that objective. λ is
    fixed, or it follows the realised KL by the rule of the PPO paper: it doubles if the KL exceeds 1.5 ``target_kl``, and
    halves if the KL is below ``target_kl`` / 1.5. Nothing bounds the KL: ``train/kl_over_target`` tells whether it exceeded
    ``target_kl``, and ``train/kl_coef`` is λ.

    Sources: section 4 of the TRPO paper (https://arxiv.org/abs/1502.05477), section 4 of the PPO paper
    (https://arxiv.org/abs/1707.06347).

    :param args: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`, in the same order. Those of the line search apply to
        the penalised surrogate, and ``cg_max_steps=1`` follows its plain gradient
    :param kl_coef: λ of the first update, advantage per nat; None: the λ at which the quadratic model's step has the KL
        ``target_kl``. The attribute is the λ of the next update, and is saved with the model
    :param adaptive_kl_coef: whether λ follows the realised KL; False: it is fixed
    :param n_policy_updates: ascent steps of the policy per rollout
    :param kwargs: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` by name
    :raises ValueError: for a hyperparameter out of range, naming it
    """

    extra_arguments = ("kl_coef", "adaptive_kl_coef", "n_policy_updates")
    step_rule = staticmethod(kl_penalty_step)

    def __init__(
        self,
        *args: Any,
        kl_coef: float | None = None,
        adaptive_kl_coef: bool = True,
        n_policy_updates: int = 5,
        **kwargs: Any,
    ) -> None:
        self.adaptive_kl_coef = adaptive_kl_coef
        super().__init__(*args, kl_coef=kl_coef, n_policy_updates=n_policy_updates, **kwargs)

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("kl_coef", self.kl_coef, KL_COEF)
        check("adaptive_kl_coef", self.adaptive_kl_coef, BOOLEAN)

    def _step_settings(self, max_kl: float) -> KLPenaltySettings:
        shared = asdict(super()._step_settings(max_kl))
        return KLPenaltySettings(**shared, kl_coef=self.kl_coef, n_steps=self.n_policy_updates, adaptive=self.adaptive_kl_coef)

"""TRPO's constraint by dual gradient descent on its multiplier."""

from dataclasses import asdict
from typing import Any

from sb3_trpo.algorithms.penalized import PenalizedTRPO
from sb3_trpo.checks import NOT_NEGATIVE, POSITIVE, check, optional
from sb3_trpo.step.dual_descent import DualDescentSettings, dual_descent_step


class DualTRPO(PenalizedTRPO):
    """
    Solves TRPO's constrained problem by dual gradient descent: a multiplier λ learns to keep the KL at ``target_kl``.

    Each update climbs the Lagrangian L(θ) - λ (D(θ) - δ) on the whole rollout by natural gradient steps with a line search on
    it. Then λ becomes max(0, λ + α (D - δ)), with δ = ``target_kl``. The constraint holds on average at best:
    ``train/kl_over_target`` tells whether the KL exceeded ``target_kl``, and ``train/kl_coef`` is λ.

    Source: section 5.5.5 of Boyd and Vandenberghe, Convex Optimization, for the dual; the problem is equation 14 of the TRPO
    paper (https://arxiv.org/abs/1502.05477).

    :param args: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`, in the same order. Those of the line search apply to
        the Lagrangian, and ``cg_max_steps=1`` follows its plain gradient
    :param kl_coef: λ of the first update, advantage per nat; None: the multiplier of the quadratic model, whose step has the
        KL ``target_kl``. The attribute is the λ of the next update, and is saved with the model
    :param dual_learning_rate: α, advantage per nat²
    :param n_policy_updates: ascent steps of the policy per rollout
    :param kwargs: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` by name
    :raises ValueError: for a hyperparameter out of range, naming it
    """

    extra_arguments = ("kl_coef", "dual_learning_rate", "n_policy_updates")
    step_rule = staticmethod(dual_descent_step)

    def __init__(
        self,
        *args: Any,
        kl_coef: float | None = None,
        dual_learning_rate: float = 10.0,
        n_policy_updates: int = 5,
        **kwargs: Any,
    ) -> None:
        self.dual_learning_rate = dual_learning_rate
        super().__init__(*args, kl_coef=kl_coef, n_policy_updates=n_policy_updates, **kwargs)

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("kl_coef", self.kl_coef, optional(NOT_NEGATIVE))
        check("dual_learning_rate", self.dual_learning_rate, POSITIVE)

    def _step_settings(self, max_kl: float) -> DualDescentSettings:
        shared = asdict(super()._step_settings(max_kl))
        rate = self.dual_learning_rate
        return DualDescentSettings(**shared, kl_coef=self.kl_coef, n_steps=self.n_policy_updates, dual_learning_rate=rate)

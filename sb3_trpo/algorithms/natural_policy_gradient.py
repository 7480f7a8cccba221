"""The natural policy gradient: TRPO's step without the line search."""

from typing import Any

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.checks import check
from sb3_trpo.step.natural_gradient import STEP_SIZE, NaturalGradientSettings, natural_gradient_step


class NaturalPolicyGradient(TRPO):
    """
    Runs the natural policy gradient (NPG): each update takes one step along the natural gradient, without a line search.

    The step has the KL ``target_kl`` in the quadratic model, or a fixed size. Nothing bounds its realised KL:
    ``train/kl_over_target`` tells whether it exceeded ``target_kl``. Only a step to numbers that are not finite is undone.

    Source: Kakade 2001, A natural policy gradient.

    :param args: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`, in the same order; those of the line search have no
        effect
    :param step_size: α of the step α (F + damping I)⁻¹ g; None: the step with KL ``target_kl`` in the quadratic model
    :param kwargs: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` by name
    :raises ValueError: for a hyperparameter out of range, naming it
    """

    extra_arguments = ("step_size",)
    step_rule = staticmethod(natural_gradient_step)

    def __init__(self, *args: Any, step_size: float | None = None, **kwargs: Any) -> None:
        self.step_size = step_size
        super().__init__(*args, **kwargs)

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("step_size", self.step_size, STEP_SIZE)

    def _step_settings(self, max_kl: float) -> NaturalGradientSettings:
        return NaturalGradientSettings(max_kl, self.cg_damping, self.cg_max_steps, self.cg_tol, self.step_size)

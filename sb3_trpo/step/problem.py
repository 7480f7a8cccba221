"""What a step rule is asked to solve, and the form of every rule."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch as th

from sb3_trpo.step.report import StepReport, Trial


class Problem(Protocol):
    """
    Maximise a surrogate L(θ) while a constraint D(θ) stays small; P parameters in all.

    A rule moves :attr:`parameters` in place. It knows nothing of policies, environments or other processes: the
    gradient, the products and every trial are those of the whole problem already.
    """

    @property
    def parameters(self) -> Sequence[th.Tensor]:
        """The tensors to move, P elements in all."""

    @property
    def old(self) -> Trial:
        """L(θ_old), and D(θ_old), which is 0 but for rounding."""

    def gradient(self) -> th.Tensor:
        """
        Differentiate L at θ_old.

        :return: g, shape (P,)
        """

    def curvature(self, vector: th.Tensor) -> th.Tensor:
        """
        Multiply a vector by F, the Hessian of D at θ_old, undamped.

        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """

    def independent_curvature(self, vector: th.Tensor) -> th.Tensor | None:
        """
        Multiply a vector by an estimate of F from states that :meth:`curvature` does not see.

        :param vector: v, shape (P,)
        :return: F v, shape (P,); None if :meth:`curvature` sees all states
        """

    def evaluate(self, max_kl: float = math.inf) -> Trial:
        """
        Evaluate L and D at the present value of the parameters.

        :param max_kl: D above which the evaluation may stop early, nats
        :return: surrogate and KL
        """


class StepRule(Protocol):
    """A way to take the policy step."""

    def __call__(self, problem: Problem, settings: Any, /) -> StepReport:
        """
        Move the problem's parameters in place.

        :param problem: what to solve
        :param settings: chosen by the user; every rule has its own class of settings
        :return: what happened
        """

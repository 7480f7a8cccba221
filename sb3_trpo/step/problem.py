"""The interfaces of step rules and of the problem that they solve."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch as th

from sb3_trpo.step.report import StepReport, Trial


class Problem(Protocol):
    """
    The problem of maximising a surrogate L(θ) while a constraint D(θ) stays small; P parameters in all.

    A rule moves :attr:`parameters` in place. It knows nothing of policies, environments or other processes: gradient,
    products and trials already belong to the whole problem.
    """

    @property
    def parameters(self) -> Sequence[th.Tensor]:
        """Return the tensors to move, P elements in all."""

    @property
    def old(self) -> Trial:
        """Return L(θ_old), and D(θ_old), which is 0 up to rounding."""

    def gradient(self) -> th.Tensor:
        """
        Differentiate L at θ_old.

        :return: g, shape (P,), in the problem's coordinates
        """

    def penalized_gradient(self, kl_coef: float) -> th.Tensor:
        """
        Differentiate L - λ D at the current parameters.

        :param kl_coef: λ
        :return: gradient, shape (P,), in the problem's coordinates
        """

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        """
        Map a step from the problem's coordinates, in which gradient and products are, to the parameters.

        :param step: shape (P,)
        :return: the step of the parameters, shape (P,)
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
        Evaluate L and D at the current parameters.

        :param max_kl: D above which the evaluation may stop early, nats
        :return: surrogate and KL
        """


class StepRule(Protocol):
    """A function that takes the policy step."""

    def __call__(self, problem: Problem, settings: Any, /) -> StepReport:
        """
        Move the problem's parameters in place.

        :param problem: what to solve
        :param settings: the user's settings; every rule has its own class of settings
        :return: what happened
        """

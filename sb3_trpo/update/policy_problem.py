"""The policy step as a problem that a step rule solves: surrogate, gradient and curvature of one batch."""

import math
from collections.abc import Sequence

import torch as th

from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.subsets import ALL_UNITS, Subsets
from sb3_trpo.step.report import Trial
from sb3_trpo.step.workers import ALONE, Workers
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.input_normalization import Coordinates
from sb3_trpo.update.surrogate import Surrogate


class PolicyProblem:
    """
    Poses the policy step of one batch, as a :class:`~sb3_trpo.step.problem.Problem`.

    The network at construction is π_old. Trials read the whole batch. Every number is reduced over the workers.

    :param network: the actor of a policy in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the whole rollout; its advantages are used as they are
    :param ent_coef: weight of the entropy bonus
    :param chunk_size: largest number of states in one pass
    :param subsets: the units that gradient and products read
    :param workers: the processes that share the update
    :param coordinates: the coordinates of gradient and products; None: those of the parameters
    :param derivatives: the batch in other units, for gradient and products; None: in its own
    """

    def __init__(
        self,
        network: ActorNetwork,
        parameters: Sequence[th.nn.Parameter],
        batch: Batch,
        ent_coef: float,
        chunk_size: int,
        subsets: Subsets = ALL_UNITS,
        workers: Workers = ALONE,
        coordinates: Coordinates | None = None,
        derivatives: Batch | None = None,
    ) -> None:
        self.parameters = parameters
        self._coordinates = coordinates
        self._subsets = subsets
        self._derivatives = batch if derivatives is None else derivatives
        in_one_pass = parameters if parameters and subsets.gradient is None and self._derivatives is batch else None
        self._surrogate = Surrogate(network, batch, ent_coef, chunk_size, in_one_pass, workers)
        self.old = self._surrogate.at_old
        self.entropy = self._surrogate.entropy

        def product(of: th.Tensor | None) -> FisherVectorProduct:
            return FisherVectorProduct(network, parameters, self._derivatives, chunk_size, of, workers)

        self._product = product(subsets.curvature)
        self._independent_product = None if subsets.independent is None else product(subsets.independent)

    def gradient(self) -> th.Tensor:
        """
        Differentiate L at θ_old.

        :return: g, shape (P,)
        """
        gradient = self._surrogate.gradient_at_old
        if gradient is None:
            gradient = self._surrogate.gradient(self.parameters, self._subsets.gradient, self._derivatives)
        return self._pulled_back(gradient)

    def penalized_gradient(self, kl_coef: float) -> th.Tensor:
        """
        Differentiate L - λ D at the current parameters.

        :param kl_coef: λ
        :return: gradient, shape (P,)
        """
        return self._pulled_back(self._surrogate.penalized_gradient(self.parameters, kl_coef, self._subsets.gradient))

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        """
        Map a step from the problem's coordinates to the parameters.

        :param step: shape (P,)
        :return: the step of the parameters, shape (P,)
        """
        return step if self._coordinates is None else self._coordinates.to_parameters(step)

    def curvature(self, vector: th.Tensor) -> th.Tensor:
        """
        Multiply a vector by the Fisher matrix at θ_old.

        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        return self._in_coordinates(self._product, vector)

    def independent_curvature(self, vector: th.Tensor) -> th.Tensor | None:
        """
        Multiply a vector by the Fisher matrix of states that :meth:`curvature` does not see.

        :param vector: v, shape (P,)
        :return: F v, shape (P,); None if :meth:`curvature` sees all states
        """
        product = self._independent_product
        return None if product is None else self._in_coordinates(product, vector)

    def _pulled_back(self, gradient: th.Tensor) -> th.Tensor:
        return gradient if self._coordinates is None else self._coordinates.pull_back(gradient)

    def _in_coordinates(self, product: FisherVectorProduct, vector: th.Tensor) -> th.Tensor:
        if self._coordinates is None:
            return product(vector)
        return self._coordinates.pull_back(product(self._coordinates.to_parameters(vector)))

    def evaluate(self, max_kl: float = math.inf) -> Trial:
        """
        Evaluate L and D on the whole batch at the current parameters.

        :param max_kl: D above which the evaluation may stop early, nats
        :return: surrogate and KL
        """
        return self._surrogate.evaluate(max_kl)

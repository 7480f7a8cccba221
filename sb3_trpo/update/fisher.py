"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence
from functools import cached_property

import torch as th

from sb3_trpo.actor.interface import ActorNetwork, Linearisation
from sb3_trpo.batch.batch import Batch
from sb3_trpo.step.workers import ALONE, Workers


class FisherVectorProduct:
    """
    Multiplies vectors by F at the policy's present parameters.

    J is the Jacobian of the distribution's parameters and M their own Fisher matrix in closed form
    (:meth:`~sb3_trpo.distributions.family.DistributionFamily.metric`), so F is the Hessian of the mean KL at
    θ_old and positive semi-definite. A product costs one J v and one Jᵀw. The results of the forward pass are
    kept from product to product for the first chunk and computed anew for the others. Nothing is computed before
    the first product.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param network: the actor of a policy in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the whole rollout
    :param chunk_size: most states in one pass
    :param units: positions of the units whose states to average over, read chunk by chunk; None: all
    :param workers: the processes over whose states to average
    """

    def __init__(
        self,
        network: ActorNetwork,
        parameters: Sequence[th.nn.Parameter],
        batch: Batch,
        chunk_size: int,
        units: th.Tensor | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.parameters = parameters
        self.batch = batch
        self._network = network
        self._workers = workers
        self._parts = batch.parts(chunk_size, units)
        self._total_weight = workers.total(batch.total_weight(units))

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        Multiply a vector by F.

        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        total = th.zeros_like(vector)
        for i in range(1, len(self._parts)):
            total += self._linearise(i).product(vector)
        # last, so that the cached chunk does not occupy memory while the uncached ones are computed
        total += self._first.product(vector)
        return self._workers.sum(total) / self._total_weight

    @cached_property
    def _first(self) -> Linearisation:
        return self._linearise(0)

    def _linearise(self, i: int) -> Linearisation:
        return self._network.linearise(self.batch.take(self._parts[i]), self.parameters)

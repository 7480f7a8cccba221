"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence

import torch as th

from sb3_trpo.actor.interface import ActorNetwork, Linearisation
from sb3_trpo.batch.batch import Batch
from sb3_trpo.step.workers import ALONE, Workers


class FisherVectorProduct:
    """
    Multiplies vectors by F at the policy's current parameters.

    J is the Jacobian of the distribution's parameters and M their own Fisher matrix in closed form
    (:meth:`~sb3_trpo.distributions.family.DistributionFamily.metric`), so F is the Hessian of the mean KL at
    θ_old and positive semi-definite. A product costs one J v and one Jᵀw. The forward pass of the first chunk is
    kept for later products, until the parameters are written to; those of the other chunks are repeated. Nothing is computed
    before the first product.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param network: the actor of a policy in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the whole rollout
    :param chunk_size: largest number of states in one pass
    :param units: positions of the units over whose states to average; None: all
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
        self._kept: Linearisation | None = None
        self._kept_versions: list[int] = []

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        Multiply a vector by F.

        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        total = th.zeros_like(vector)
        for i in range(1, len(self._parts)):
            total += self._linearise(i).product(vector)
        if self._parts:  # a worker may have none of the units
            # last, so that the cached chunk does not occupy memory while the uncached ones are computed
            total += self._first().product(vector)
        return self._workers.sum(total) / self._total_weight

    def _first(self) -> Linearisation:
        """Linearise the first chunk, unless it was since the parameters were written to: autograd refuses an older graph."""
        versions = [parameter._version for parameter in self.parameters]
        if self._kept is None or versions != self._kept_versions:
            self._kept = None  # frees its memory
            self._kept, self._kept_versions = self._linearise(0), versions
        return self._kept

    def _linearise(self, i: int) -> Linearisation:
        return self._network.linearise(self.batch.take(self._parts[i]), self.parameters)

"""Products with the Fisher matrix F = mean over states of Jᵀ M J (Gauss-Newton), without ever forming it."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch as th

from sb3_trpo.actor.network import ActorNetwork, Linearisation
from sb3_trpo.batch.batch import Batch


class FisherVectorProduct:
    """
    v -> F v at the policy's present parameters.

    J is the Jacobian of the distribution's parameters and M their own Fisher matrix in closed form
    (:meth:`~sb3_trpo.distributions.families.DistributionFamily.metric`), so F is the Hessian of the mean KL at
    θ_old and positive semi-definite. A product costs one J v and one Jᵀw. What they need of the forward pass is
    kept from product to product for the first chunk and computed anew for the others. Nothing is computed before
    the first product.

    Source: appendix C of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param network: the actor of a policy in evaluation mode
    :param parameters: the actor's parameters, P elements in all
    :param batch: the whole rollout
    :param chunk_size: most states in one pass
    :param states: positions of the states to average over, read chunk by chunk; None: all
    """

    def __init__(
        self,
        network: ActorNetwork,
        parameters: Sequence[th.nn.Parameter],
        batch: Batch,
        chunk_size: int,
        states: th.Tensor | None = None,
    ) -> None:
        self.parameters = parameters
        self.batch = batch
        self.chunk_size = chunk_size
        self.states = states
        self.n_states = len(batch) if states is None else len(states)
        self._network = network

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (P,)
        :return: F v, shape (P,)
        """
        total = th.zeros_like(vector)
        for start in range(self.chunk_size, self.n_states, self.chunk_size):
            total += self._linearise(start).product(vector)
        total += self._first.product(vector)  # at the end: what is kept from now on comes after what is not
        return total / self.n_states

    @cached_property
    def _first(self) -> Linearisation:
        return self._linearise(0)

    def _linearise(self, start: int) -> Linearisation:
        return self._network.linearise(self.batch.chunk(start, self.chunk_size, self.states), self.parameters)


def fisher_subsets(
    candidates: th.Tensor, fraction: float, n_states: int, seed: tuple[int, ...]
) -> tuple[th.Tensor, th.Tensor]:
    """
    Draw the states of the Fisher products, and others that tell how long the solver's step is.

    The solver fits its step to the noise of its states: on these the step looks shorter, in KL, than it is. Drawn from a
    generator of its own.

    :param candidates: positions that the products may use (appendix C.1 of the paper takes 10% of them)
    :param fraction: share to take, in (0, 1]
    :param n_states: states of the whole batch
    :param seed: seed of the run and number of the update, so that a resumed run draws the same
    :return: sorted positions of the products' states, at least one, and of as many others, if there are
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(fraction * len(candidates)))
    chosen = rng.choice(candidates.numpy(), size=size, replace=False, shuffle=False)
    rest = np.setdiff1d(np.arange(n_states), chosen, assume_unique=True)
    others = rng.choice(rest, size=min(size, len(rest)), replace=False, shuffle=False)
    return th.from_numpy(np.sort(chosen)), th.from_numpy(np.sort(others))

"""The surrogate objective L(θ) and the constraint D(θ) of a policy on one batch, in chunks with exact sums."""

import math
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import rows_at
from sb3_trpo.distributions.family import Parameters
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.step.report import Trial
from sb3_trpo.step.workers import ALONE, Workers

_BEYOND = 1.01
"""Factor by which the KL of a part must exceed the bound on the whole; rounding may make a state's KL negative."""


class Surrogate:
    """
    Evaluates L(θ) = mean[π_θ(a|s) / π_old(a|s) · Â] + ``ent_coef`` · mean entropy, and D(θ) = mean KL(π_old(·|s) ‖ π_θ(·|s)).

    The network at construction is π_old of the constraint. Means are weighted by the batch's weights. Source: equations 13
    and 14 of the TRPO paper (https://arxiv.org/abs/1502.05477).

    :param network: the actor of a policy in evaluation mode: KL(old‖old) must be 0
    :param batch: the whole rollout, B transitions; its advantages are used as they are
    :param ent_coef: weight of the entropy bonus
    :param chunk_size: largest number of states in one forward pass
    :param parameters: the actor's parameters; if given, the first pass over the batch also computes :attr:`gradient_at_old`
    :param workers: the processes over whose batches L and D are means
    """

    def __init__(
        self,
        network: ActorNetwork,
        batch: Batch,
        ent_coef: float,
        chunk_size: int,
        parameters: Sequence[th.nn.Parameter] | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.batch = batch
        self.ent_coef = ent_coef
        self.chunk_size = chunk_size
        self.entropy = 0.0  # mean entropy at the last complete evaluation, nats
        self.gradient_at_old: th.Tensor | None = None
        self._network = network
        self._workers = workers
        self._old: list[Parameters] = []
        self._total_weight = workers.total(batch.total_weight())
        if parameters is None:
            self.at_old = self.evaluate()
        else:
            self.at_old, self.gradient_at_old = self._differentiate_at_old(parameters)

    def evaluate(self, max_kl: float = math.inf) -> Trial:
        """
        Evaluate L and D on the whole batch at the network's current parameters.

        No state's KL is negative. So if the first chunks already exceed the bound, the evaluation stops, and D is a lower
        bound above ``max_kl``.

        :param max_kl: δ, nats
        :return: surrogate and KL, summed in float64
        """
        sums, complete = _no_sums(), True
        with th.no_grad(), unchecked_distributions():
            for i, chunk in enumerate(self.batch.chunks(self.chunk_size)):
                distribution = self._network.distribution(chunk.states)
                self._add_up(sums, i, chunk, distribution, *_gain_and_entropy(chunk, distribution))
                if sums[1] > _BEYOND * max_kl * self._total_weight:
                    complete = False
                    break
        return self._trial(sums, complete)

    def gradient(
        self, parameters: Sequence[th.nn.Parameter], units: th.Tensor | None = None, batch: Batch | None = None
    ) -> th.Tensor:
        """
        Differentiate L at the current parameters, with one backward pass.

        :param parameters: the actor's parameters, P elements in all
        :param units: positions of the units to average over, shape (u,); None: all
        :param batch: the same batch in other units; None: the batch itself
        :return: g, shape (P,)
        """
        batch = self.batch if batch is None else batch

        def objective(chunk: Batch, distribution: Distribution) -> th.Tensor:
            return self._objective(chunk, *_gain_and_entropy(chunk, distribution))

        total = _zeros(parameters)
        for chunk in batch.chunks(self.chunk_size, units):
            with unchecked_distributions():
                total = total + self._network.gradient(objective, chunk, parameters)
        weight = self._total_weight if units is None else self._workers.total(batch.total_weight(units))
        return self._workers.sum(total) / weight

    def penalized_gradient(
        self, parameters: Sequence[th.nn.Parameter], kl_coef: float, units: th.Tensor | None = None
    ) -> th.Tensor:
        """
        Differentiate L - λ D at the current parameters, with one backward pass.

        :param parameters: the actor's parameters, P elements in all
        :param kl_coef: λ
        :param units: positions of the units to average over, shape (u,); None: all
        :return: the gradient, shape (P,)
        """
        whole = None if units is None else [th.cat(parts) for parts in zip(*self._old, strict=True)]
        total = _zeros(parameters)
        for i, part in enumerate(self.batch.parts(self.chunk_size, units)):
            rows = self.batch.states.rows_of(part)
            old = self._old[i] if whole is None else tuple(rows_at(values, rows) for values in whole)

            def objective(chunk: Batch, distribution: Distribution, old: Parameters = old) -> th.Tensor:
                family = distribution_family(distribution)
                kl = family.kl_old_new(old, family.parameters(distribution, chunk.actions))
                return self._objective(chunk, *_gain_and_entropy(chunk, distribution)) - kl_coef * chunk.weighted(kl)

            with unchecked_distributions():
                total = total + self._network.gradient(objective, self.batch.take(part), parameters)
        weight = self._total_weight if units is None else self._workers.total(self.batch.total_weight(units))
        return self._workers.sum(total) / weight

    def _differentiate_at_old(self, parameters: Sequence[th.nn.Parameter]) -> tuple[Trial, th.Tensor]:
        """Compute L, D and ∇L in one pass, and remember π_old."""
        sums, total = _no_sums(), _zeros(parameters)
        for i, chunk in enumerate(self.batch.chunks(self.chunk_size)):

            def objective(chunk: Batch, distribution: Distribution, i: int = i) -> th.Tensor:
                gain, entropy = _gain_and_entropy(chunk, distribution)
                self._add_up(sums, i, chunk, distribution, gain, entropy)
                return self._objective(chunk, gain, entropy)

            with unchecked_distributions():
                total = total + self._network.gradient(objective, chunk, parameters)
        return self._trial(sums, complete=True), self._workers.sum(total) / self._total_weight

    def _objective(self, chunk: Batch, gain: th.Tensor, entropy: th.Tensor) -> th.Tensor:
        """Compute the weighted summands of L."""
        return chunk.weighted(gain + self.ent_coef * entropy if self.ent_coef else gain)

    def _add_up(
        self,
        sums: th.Tensor,
        i: int,
        chunk: Batch,
        distribution: Distribution,
        gain: th.Tensor,
        entropy: th.Tensor,
    ) -> None:
        """Add the i-th chunk to the sums of gain, KL and entropy."""
        with th.no_grad():
            family = distribution_family(distribution)
            new = tuple(part.detach() for part in family.parameters(distribution, chunk.actions))
            kl = family.kl_old_new(self._old_parameters(i, new), new)
            terms = th.stack([chunk.weighted(part) for part in (gain, kl, entropy)])
            sums += terms.cpu().double().sum(dim=1)

    def _old_parameters(self, i: int, new: Parameters) -> Parameters:
        """Return the parameters of π_old in the i-th chunk; the first pass stores the new ones."""
        if i == len(self._old):
            # cloned: a head that ignores the state returns views of its own weights
            self._old.append(tuple(part.clone() for part in new))
        return self._old[i]

    def _trial(self, sums: th.Tensor, complete: bool) -> Trial:
        """
        Compute L and D from the sums over the batch.

        The KL of a worker that stopped early exceeds the bound on the whole by itself, and its gain is NaN. So all workers
        see the same trial and reject it.
        """
        if not complete:
            sums[0] = math.nan
        mean_gain, mean_kl, entropy = (self._workers.sum(sums) / self._total_weight).tolist()
        if math.isnan(mean_gain) and self._workers.any(not complete):
            return Trial(math.nan, mean_kl, complete=False)
        self.entropy = entropy
        return Trial(mean_gain + self.ent_coef * entropy if self.ent_coef else mean_gain, mean_kl)


def _no_sums() -> th.Tensor:
    """Sums of gain, KL and entropy before the first chunk."""
    return th.zeros(3, dtype=th.float64)


def _zeros(parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
    return parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))


def _gain_and_entropy(chunk: Batch, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute gain and entropy, one value per state.

    Without a closed form, the entropy is an importance-weighted estimate with the right gradient at θ_old.
    """
    gain, estimate = chunk.surrogate_terms(distribution)
    try:
        entropy = distribution.entropy()
    except NotImplementedError:  # torch raises this where SB3 returns None
        entropy = None
    return gain, estimate if entropy is None else entropy

"""The surrogate objective L(θ) and the constraint D(θ) of a policy on one batch, in chunks with exact sums."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.actor.network import ActorNetwork
from sb3_trpo.batch.batch import Batch
from sb3_trpo.distributions.families import Parameters, distribution_family, unchecked_distributions
from sb3_trpo.step.trust_region import Trial

_BEYOND = 1.01
"""How far the KL of a part must exceed the bound on the whole; a state's KL may be negative by rounding."""


class Surrogate:
    """
    L(θ) = mean[π_θ(a|s) / π_old(a|s) · Â] + ``ent_coef`` · mean entropy, and D(θ) = mean KL(π_old(·|s) ‖ π_θ(·|s)).

    The network as it is at construction is π_old of the constraint. Source: equations 13 and 14 of the TRPO paper
    (https://arxiv.org/abs/1502.05477).

    :param network: the actor of a policy in evaluation mode: KL(old‖old) must be 0
    :param batch: the whole rollout, B transitions; its advantages are used as they are
    :param ent_coef: weight of the entropy bonus
    :param chunk_size: most states in one forward pass
    :param parameters: those of the actor; if given, the first pass over the batch brings :attr:`gradient_at_old` along
    """

    def __init__(
        self,
        network: ActorNetwork,
        batch: Batch,
        ent_coef: float,
        chunk_size: int,
        parameters: Sequence[th.nn.Parameter] | None = None,
    ) -> None:
        self.batch = batch
        self.ent_coef = ent_coef
        self.chunk_size = chunk_size
        self.entropy = 0.0  # mean entropy at the last evaluation, nats
        self._network = network
        self._old: list[Parameters] = []
        self.gradient_at_old: th.Tensor | None = None
        if parameters is None:
            self.at_old = self._evaluate(self._remember)
        else:
            self.at_old, self.gradient_at_old = self._differentiate_at_old(parameters)

    def evaluate(self, max_kl: float = math.inf) -> Trial:
        """
        L and D of the whole batch at the network's present parameters.

        No state's KL is negative, so once the chunks so far exceed the bound the rest is left out: L is then NaN, and D a
        lower bound above ``max_kl``.

        :param max_kl: δ, nats
        :return: surrogate and KL, summed in float64
        """
        remembered = iter(self._old)
        return self._evaluate(lambda _: next(remembered), max_kl)

    def _differentiate_at_old(self, parameters: Sequence[th.nn.Parameter]) -> tuple[Trial, th.Tensor]:
        totals = _no_totals()
        look = partial(self._add_up, totals, old_of=self._remember)
        gradient = self._gradient(parameters, None, look)
        return self._trial(totals), gradient

    def _remember(self, parameters: Parameters) -> Parameters:
        # cloned: a head that ignores the state returns views of its own weights
        self._old.append(tuple(part.clone() for part in parameters))
        return self._old[-1]

    def _evaluate(self, old_of: Callable[[Parameters], Parameters], max_kl: float = math.inf) -> Trial:
        """L and D, chunk by chunk; ``old_of`` gives a chunk's old parameters for its new ones."""
        totals = _no_totals()
        with th.no_grad(), unchecked_distributions():
            for chunk in self.batch.chunks(self.chunk_size):
                self._add_up(totals, chunk, self._network.distribution(chunk.observations), old_of)
                if totals[1] > _BEYOND * max_kl * len(self.batch):
                    return Trial(surrogate=math.nan, kl=float(totals[1]) / len(self.batch))
        return self._trial(totals)

    def _add_up(
        self,
        totals: th.Tensor,
        chunk: Batch,
        distribution: Distribution,
        old_of: Callable[[Parameters], Parameters],
    ) -> tuple[th.Tensor, th.Tensor]:
        """Add a chunk to the sums of gain, KL and entropy; return its gain and entropy with the distribution's graph."""
        gain, entropy = _gain_and_entropy(chunk, distribution)
        with th.no_grad():
            family = distribution_family(distribution)
            new = tuple(part.detach() for part in family.parameters(distribution, chunk.actions))
            kl = family.kl_old_new(old_of(new), new)
            totals += th.stack([gain, kl, entropy]).cpu().double().sum(dim=1)
        return gain, entropy

    def _trial(self, totals: th.Tensor) -> Trial:
        """L and D from the sums over the batch."""
        mean_gain, mean_kl, self.entropy = (totals / len(self.batch)).tolist()
        return Trial(mean_gain + self.ent_coef * self.entropy if self.ent_coef else mean_gain, mean_kl)

    def gradient(self, parameters: Sequence[th.nn.Parameter], positions: th.Tensor | None = None) -> th.Tensor:
        """
        ∇L at the present parameters: one backward pass.

        :param parameters: the actor's parameters, P elements in all
        :param positions: the transitions to average over, shape (b,); None: all
        :return: g, shape (P,)
        """
        return self._gradient(parameters, positions, _gain_and_entropy)

    def _gradient(
        self,
        parameters: Sequence[th.nn.Parameter],
        positions: th.Tensor | None,
        gain_and_entropy: Callable[[Batch, Distribution], tuple[th.Tensor, th.Tensor]],
    ) -> th.Tensor:
        """∇L, chunk by chunk; ``gain_and_entropy`` sees each chunk's distribution once."""

        def objective(chunk: Batch, distribution: Distribution) -> th.Tensor:
            gain, entropy = gain_and_entropy(chunk, distribution)
            return gain + self.ent_coef * entropy if self.ent_coef else gain

        total = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))
        for chunk in self.batch.chunks(self.chunk_size, positions):
            with unchecked_distributions():
                total = total + self._network.gradient(objective, chunk, parameters)
        return total / (len(self.batch) if positions is None else len(positions))


def _no_totals() -> th.Tensor:
    """Sums of gain, KL and entropy before the first chunk."""
    return th.zeros(3, dtype=th.float64)


def _gain_and_entropy(chunk: Batch, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
    """One value a state; entropy without a closed form is an importance-weighted estimate with the right gradient at θ_old."""
    gain, estimate = chunk.estimates(distribution)
    try:
        entropy = distribution.entropy()
    except NotImplementedError:  # torch's own have it or raise this, SB3's return None
        entropy = None
    return gain, estimate if entropy is None else entropy

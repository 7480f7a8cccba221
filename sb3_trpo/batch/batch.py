"""A rollout as one batch of transitions, which the policy step and the critic read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.batch.states import Index, States, rows_at


@dataclass(frozen=True)
class Batch:
    """
    B transitions of one rollout, in U units. Observations stay in the buffer's dtype and memory until a chunk is read.

    Subsets, chunks and mini-batches consist of whole units: of single transitions for a feed-forward policy, of windows for a
    recurrent one.

    :param states: the B states, which know their units
    :param actions: shape (B, d); (B,) integers for a discrete action space
    :param old_log_prob: log-probability of the action when it was taken, shape (B,), nats
    :param advantages: shape (B,)
    :param returns: targets of the critic, shape (B,)
    :param weights: how often each transition counts in every mean, at least 0, shape (B,); None: once each. The numbers of
        transitions that do not count must be finite all the same
    """

    states: States
    actions: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor
    weights: th.Tensor | None = None

    def __len__(self) -> int:
        return len(self.advantages)

    @property
    def n_units(self) -> int:
        """Return the number of units in the batch."""
        return len(self) if self.states.unit_starts is None else self.states.n_units

    @property
    def device(self) -> th.device:
        """Return the device to which parts of the batch are moved."""
        return self.advantages.device

    def checked(self) -> Batch:
        """
        Check that units and weights fit the batch.

        :return: the batch itself
        :raises ValueError: if the units do not make up the batch, or a weight is negative or not finite
        """
        starts, weights = self.states.unit_starts, self.weights
        if starts is not None:
            edges = [*starts.tolist(), len(self)]
            if edges[0] != 0 or any(after <= before for before, after in pairwise(edges)):
                raise ValueError(
                    f"`unit_starts` must ascend from 0 to less than {len(self)}, the transitions, not be {starts}"
                )
        if weights is not None and not (weights.shape == self.advantages.shape and _not_negative(weights)):
            raise ValueError(f"`weights` must be {len(self)} finite numbers >= 0, not {weights}")
        return self

    def total_weight(self, units: th.Tensor | None = None) -> float:
        """
        Add up the weights of the transitions.

        :param units: positions of the units to count, shape (u,); None: all
        :return: the sum; without weights, the number of transitions
        """
        rows = slice(None) if units is None else self.states.rows_of(units)
        if self.weights is None:
            return float(len(rows_at(self.advantages, rows)))
        return rows_at(self.weights, rows).double().sum().item()

    def take(self, units: Index) -> Batch:
        """
        Select some of the units.

        :param units: a slice, or integer positions of shape (u,)
        :return: a batch of their transitions, on the device of the advantages
        """
        rows = self.states.rows_of(units)
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "states"}
        parts = {name: None if value is None else rows_at(value, rows) for name, value in parts.items()}
        return replace(self, states=self.states.take(units, self.device), **parts)

    def states_at(self, units: Index) -> States:
        """
        Select the states of some of the units.

        :param units: a slice, or integer positions of shape (u,)
        :return: their states, on the device of the advantages
        """
        return self.states.take(units, self.device)

    def parts(self, size: int, units: th.Tensor | None = None) -> list[Index]:
        """
        Divide the units into consecutive parts.

        :param size: largest number of transitions in a part, unless one unit has more
        :param units: positions of the units to divide, shape (u,); None: all
        :return: the units of each part
        """
        n_units = self.n_units if units is None else len(units)
        if n_units == 0:
            return []
        if self.states.unit_starts is None:
            edges = list(range(0, n_units, size))
        else:
            lengths = self.states.unit_lengths if units is None else rows_at(self.states.unit_lengths, units)
            edges = edges_of(lengths.tolist(), size)
        slices = [slice(*pair) for pair in zip(edges, [*edges[1:], n_units], strict=True)]
        return [part if units is None else units[part] for part in slices]

    def chunks(self, size: int, units: th.Tensor | None = None) -> Iterator[Batch]:
        """
        Read the batch in consecutive parts.

        :param size: largest number of transitions in one chunk, unless one unit has more
        :param units: positions of the units to read, shape (u,); None: all
        :return: each of :meth:`parts` as a batch
        """
        for part in self.parts(size, units):
            yield self.take(part)

    def surrogate_terms(self, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
        """
        Estimate means over the actions of another policy from the actions that were taken.

        :param distribution: π_θ at the B states
        :return: for each state, estimates of the mean of Â and of the mean of -log π_θ, each of shape (B,)
        """
        log_prob = distribution.log_prob(self.actions)
        ratio = th.exp(log_prob - self.old_log_prob)
        return ratio * self.advantages, -ratio * log_prob

    def with_advantages(self, advantages: th.Tensor) -> Batch:
        """
        Replace the advantages.

        :param advantages: shape (B,)
        :return: the same batch with other advantages
        """
        return replace(self, advantages=advantages)

    def weighted(self, values: th.Tensor) -> th.Tensor:
        """
        Multiply values by the weights of their transitions.

        :param values: shape (B,) or (B, ...)
        :return: the products; without weights, the values themselves
        """
        if self.weights is None:
            return values
        return values * self.weights.view(-1, *[1] * (values.dim() - 1))


def _not_negative(weights: th.Tensor) -> bool:
    return bool((weights.isfinite() & (weights >= 0.0)).all())


def edges_of(lengths: list[int], size: int) -> list[int]:
    """
    Divide consecutive units into parts. Each takes as many units as fit.

    :param lengths: number of transitions in each unit
    :param size: largest number of transitions in a part, unless one unit has more
    :return: the first unit of each part
    """
    edges, filled = [], size + 1
    for unit, length in enumerate(lengths):
        if filled + length > size:
            edges.append(unit)
            filled = 0
        filled += length
    return edges

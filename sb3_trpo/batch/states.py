"""The inputs of a policy: observations, and further inputs that some policies need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch as th

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
Index: TypeAlias = slice | th.Tensor
"""A slice, or integer positions of shape (b,)."""


@dataclass(frozen=True)
class States:
    """
    B states of a policy, in U units; feed-forward policies read the observations alone.

    The states of a unit stay together: one state for a feed-forward policy, a window of consecutive steps of one environment
    for a recurrent one.

    :param observations: shape (B, ...), or a dict of such
    :param action_masks: actions that are possible, shape (B, n), bool; None: all
    :param memory: recurrent state before the first step of each unit, each tensor of shape (U, ...); None: there is none
    :param episode_starts: whether an episode begins, shape (B,); None: not recorded
    :param unit_starts: first state of each unit, ascending from 0, shape (U,); None: every state is a unit
    """

    observations: Observations
    action_masks: th.Tensor | None = None
    memory: tuple[th.Tensor, ...] | None = None
    episode_starts: th.Tensor | None = None
    unit_starts: th.Tensor | None = None

    def __len__(self) -> int:
        observations = self.observations
        return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)

    @property
    def n_units(self) -> int:
        """Return the number of units."""
        return len(self) if self.unit_starts is None else len(self.unit_starts)

    @property
    def unit_lengths(self) -> th.Tensor:
        """Return the number of states in each unit, shape (U,), on the CPU."""
        if self.unit_starts is None:
            return th.ones(len(self), dtype=th.long)
        return th.diff(self.unit_starts, append=self.unit_starts.new_tensor([len(self)])).cpu()

    def rows_of(self, units: Index) -> Index:
        """
        Find the states of some of the units.

        :param units: a slice, or integer positions of shape (u,)
        :return: positions of their states
        """
        if self.unit_starts is None:
            return units
        positions = th.arange(self.n_units)[units] if isinstance(units, slice) else units.cpu()
        lengths = self.unit_lengths[positions]
        first = th.repeat_interleave(self.unit_starts.cpu()[positions] - _starts_of(lengths), lengths)
        return first + th.arange(len(first))

    def take(self, units: Index, device: th.device) -> States:
        """
        Select some of the units.

        :param units: a slice, or integer positions of shape (u,)
        :param device: device to move the states to
        :return: the states of these units
        """
        rows = self.rows_of(units)

        def of_states(tensor: th.Tensor) -> th.Tensor:
            return rows_at(tensor, rows).to(device)

        return States(
            observations=map_observations(self.observations, of_states),
            action_masks=None if self.action_masks is None else of_states(self.action_masks),
            memory=None if self.memory is None else tuple(rows_at(part, units).to(device) for part in self.memory),
            episode_starts=None if self.episode_starts is None else of_states(self.episode_starts),
            unit_starts=None if self.unit_starts is None else _starts_of(rows_at(self.unit_lengths, units)),
        )


def _starts_of(lengths: th.Tensor) -> th.Tensor:
    """Return where units of these lengths begin, one after another."""
    return lengths.cumsum(0) - lengths


def concatenate(parts: Sequence[States]) -> States:
    """
    Join single states one after another.

    :param parts: at least one; all of them have the same fields, and every state is a unit
    :return: all their states
    """

    def join(tensors: Sequence[th.Tensor | None]) -> th.Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return th.cat(present) if present else None

    first = parts[0].observations
    observations: Observations
    if isinstance(first, dict):
        observations = {key: th.cat([part.observations[key] for part in parts]) for key in first}  # type: ignore[index]
    else:
        observations = th.cat([part.observations for part in parts])  # type: ignore[misc]
    memories = [part.memory for part in parts if part.memory is not None]
    return States(
        observations,
        action_masks=join([part.action_masks for part in parts]),
        memory=tuple(th.cat(tensors) for tensors in zip(*memories, strict=True)) if memories else None,
        episode_starts=join([part.episode_starts for part in parts]),
    )


def rows_at(tensor: th.Tensor, index: Index) -> th.Tensor:
    """
    Select rows of a tensor.

    :param tensor: shape (B, ...)
    :param index: the rows to select
    :return: a view for a slice, otherwise a copy
    """
    if isinstance(index, slice):
        return tensor[index]
    return tensor.index_select(0, index.to(tensor.device))  # copies whole rows, which tensor[index] does not


def map_observations(observations: Observations, function: Callable[[th.Tensor], th.Tensor]) -> Observations:
    """
    Apply a function to the observations, or to each entry of a dict of observations.

    :param observations: shape (B, ...), or a dict of such
    :param function: the function to apply
    :return: the results, in the same structure
    """
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)

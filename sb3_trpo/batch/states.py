"""The inputs of a policy: observations, and further inputs that some policies need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch as th

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
Index: TypeAlias = slice | th.Tensor
"""A slice, or integer positions of shape (b,)."""


@dataclass(frozen=True)
class States:
    """
    The inputs of a policy at B states. Feed-forward policies read only the observations.

    :param observations: shape (B, ...), or a dict of such
    :param action_masks: whether each action is allowed, shape (B, n), bool; None: all are
    :param memory: recurrent state before the first step of each unit, each tensor of shape (U, ...); None: there is none
    :param episode_starts: whether an episode begins, shape (B,); None: not recorded
    """

    observations: Observations
    action_masks: th.Tensor | None = None
    memory: tuple[th.Tensor, ...] | None = None
    episode_starts: th.Tensor | None = None

    def map(self, function: Callable[[th.Tensor], th.Tensor]) -> States:
        """
        Apply a function to every tensor.

        :param function: the function to apply
        :return: the results as states
        """
        return self._map(function, function)

    def take(self, rows: Index, units: Index, device: th.device) -> States:
        """
        Select some of the states.

        :param rows: positions of the states
        :param units: positions of their units, to which the memory belongs
        :param device: the device to move them to
        :return: the states at these positions
        """
        return self._map(lambda t: rows_at(t, rows).to(device), lambda t: rows_at(t, units).to(device))

    def _map(self, of_states: Callable[[th.Tensor], th.Tensor], of_units: Callable[[th.Tensor], th.Tensor]) -> States:
        return replace(
            self,
            observations=map_observations(self.observations, of_states),
            action_masks=None if self.action_masks is None else of_states(self.action_masks),
            memory=None if self.memory is None else tuple(map(of_units, self.memory)),
            episode_starts=None if self.episode_starts is None else of_states(self.episode_starts),
        )


def concatenate(parts: Sequence[States]) -> States:
    """
    Join states one after another.

    :param parts: at least one; all of them have the same fields
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

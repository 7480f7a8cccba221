"""What a policy is asked about: observations, and what a variant of policy needs beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch as th

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
Index: TypeAlias = slice | th.Tensor
"""A slice, or integer positions of shape (b,)."""


@dataclass(frozen=True)
class States:
    """
    B states at which a policy is asked; feed-forward policies read the observations alone.

    :param observations: shape (B, ...), or a dict of such
    :param action_masks: actions that are possible, shape (B, n), bool; None: all
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

        :param function: what to apply
        :return: the results as states
        """
        return self._map(function, function)

    def take(self, rows: Index, units: Index, device: th.device) -> States:
        """
        Select some of the states.

        :param rows: positions of the states
        :param units: positions of their units, which the memory belongs to
        :param device: where to put them
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


def rows_at(tensor: th.Tensor, index: Index) -> th.Tensor:
    """
    Select rows of a tensor.

    :param tensor: shape (B, ...)
    :param index: which rows
    :return: a view for a slice, else a copy
    """
    if isinstance(index, slice):
        return tensor[index]
    return tensor.index_select(0, index.to(tensor.device))  # copies whole rows, which tensor[index] does not


def map_observations(observations: Observations, function: Callable[[th.Tensor], th.Tensor]) -> Observations:
    """
    Apply a function to the observations, to each entry when they are a dict.

    :param observations: shape (B, ...), or a dict of such
    :param function: what to apply
    :return: the results, in the same structure
    """
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)

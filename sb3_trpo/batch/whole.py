"""The rollouts of all workers as one: their environments and units are numbered as in one process that has them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sb3_trpo.batch.batch import Batch
from sb3_trpo.step.workers import ALONE, Workers


class Share(NamedTuple):
    """
    This worker's environments among those of all workers.

    :param first: number of environments of the workers before this one
    :param n_envs: number of environments of this worker
    :param total: number of environments of all workers
    """

    first: int
    n_envs: int
    total: int

    @classmethod
    def of(cls, n_envs: int, workers: Workers = ALONE) -> Share:
        """
        Number the environments in the order of the workers.

        :param n_envs: number of environments of this worker
        :param workers: the workers
        :return: this worker's share
        """
        numbers = workers.gather(n_envs)
        return cls(sum(numbers[: workers.rank]), n_envs, sum(numbers))

    @property
    def own(self) -> slice:
        """Return the positions of this worker's environments among all."""
        return slice(self.first, self.first + self.n_envs)


@dataclass(frozen=True)
class Whole:
    """
    The units of all workers' batches, U in all, numbered as in one process.

    Single transitions are numbered step by step. Windows are sorted by length, those of the same length by environment.

    :param n_units: U
    :param n_states: number of transitions of all workers
    :param n_envs: number of environments of all workers
    :param lengths: number of transitions in each unit, shape (U,); None: one in each
    :param local: position of each unit in this worker's batch, or -1 if another worker has it, shape (U,); None: the batch
        holds all units in this order
    """

    n_units: int
    n_states: int
    n_envs: int
    lengths: np.ndarray | None = None
    local: np.ndarray | None = None

    @classmethod
    def of(cls, batch: Batch, n_envs: int, workers: Workers = ALONE) -> Whole:
        """
        Number the units of all workers' batches.

        :param batch: this worker's batch
        :param n_envs: number of environments of this worker
        :param workers: the workers
        :return: the units
        """
        single = batch.states.unit_starts is None
        lengths = None if single else batch.states.unit_lengths.numpy()
        if workers.size == 1:
            return cls(batch.n_units, len(batch), n_envs, lengths)
        parts = [_Part(*part) for part in workers.gather((n_envs, len(batch), batch.n_units, lengths))]
        owners, rows = (_in_steps if single else _in_windows)(parts)
        local = np.where(owners == workers.rank, rows, -1)
        numbered = None if single else np.concatenate([part.lengths for part in parts])[_offsets(parts)[owners] + rows]
        n_states, total = sum(part.n_states for part in parts), sum(part.n_envs for part in parts)
        return cls(len(local), n_states, total, numbered, local)

    def own(self, units: np.ndarray) -> np.ndarray:
        """
        Select this worker's units.

        :param units: numbers of units of all workers, shape (u,)
        :return: positions of those that this worker has, in its batch and in the same order
        """
        if self.local is None:
            return units
        positions: np.ndarray = self.local[units]
        return positions[positions >= 0]

    def n_states_of(self, units: np.ndarray) -> int:
        """
        Count the transitions in units.

        :param units: numbers of units of all workers, shape (u,)
        :return: the number of transitions
        """
        return len(units) if self.lengths is None else int(self.lengths[units].sum())


class _Part(NamedTuple):
    """What a worker tells the others of its batch."""

    n_envs: int
    n_states: int
    n_units: int
    lengths: np.ndarray | None


def _offsets(parts: Sequence[_Part]) -> np.ndarray:
    """Count the units of the workers before each worker."""
    return np.cumsum([0, *(part.n_units for part in parts)])


def _one_after_another(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
    owners = np.repeat(np.arange(len(parts)), [part.n_units for part in parts])
    return owners, np.concatenate([np.arange(part.n_units) for part in parts])


def _in_steps(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
    """Find the owner of each transition and its position there, if all transitions are sorted by step."""
    n_steps = {part.n_states / part.n_envs for part in parts}
    if len(n_steps) > 1 or not all(n.is_integer() for n in n_steps):  # custom buffers may hold any number
        return _one_after_another(parts)
    envs = [part.n_envs for part in parts]
    owners = np.repeat(np.arange(len(parts)), envs)
    columns = np.concatenate([np.arange(n) for n in envs])
    steps = np.arange(int(n_steps.pop()))[:, None]
    return np.tile(owners, len(steps)), (steps * np.array(envs)[owners] + columns).flatten()


def _in_windows(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
    """Find the owner of each window and its position there, if all windows are sorted by length as each worker's are."""
    owners, rows = _one_after_another(parts)
    lengths = [part.lengths for part in parts if part.lengths is not None]
    if all(a <= b for own in lengths for a, b in pairwise(own.tolist())):  # pieces of windows are not sorted
        order = np.argsort(np.concatenate(lengths), kind="stable")
        owners, rows = owners[order], rows[order]
    return owners, rows

"""The units of several workers are numbered as in one process."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.subsets import every_kth, minibatches, shared_permutation
from sb3_trpo.batch.whole import Share, Whole
from sb3_trpo.batch.windows import in_windows
from sb3_trpo.step.workers import Alone

N_STEPS = 5


class Reading(Alone):
    """A worker that knows what the others would say."""

    def __init__(self, rank: int, values: Sequence[Any]) -> None:
        self.rank, self.size, self._values = rank, len(values), values

    def gather(self, value: Any) -> list[Any]:
        return list(self._values)


def rollout(starts: th.Tensor, first: int, total: int, windows: bool) -> Batch:
    """A rollout whose advantages name the transition: its step and its environment among all."""
    n_envs = starts.shape[1]
    names = th.tensor([10.0 * step + first + env for step in range(N_STEPS) for env in range(n_envs)])
    states = States(names[:, None], episode_starts=starts.flatten())
    batch = Batch(states, names, names, names, names)
    return in_windows(batch, n_envs, (th.zeros(n_envs, 1),)) if windows else batch


def parts_of(n_envs: Sequence[int], windows: bool) -> tuple[Batch, list[Batch]]:
    generator = th.Generator().manual_seed(1)
    starts = th.rand(N_STEPS, sum(n_envs), generator=generator) < 0.3
    edges = np.cumsum([0, *n_envs]).tolist()
    parts = [rollout(starts[:, a:b], a, sum(n_envs), windows) for a, b in pairwise(edges)]
    return rollout(starts, 0, sum(n_envs), windows), parts


def wholes(parts: Sequence[Batch], n_envs: Sequence[int], windows: bool) -> list[Whole]:
    lengths = [part.states.unit_lengths.numpy() if windows else None for part in parts]
    said = [(n, len(part), part.n_units, length) for n, part, length in zip(n_envs, parts, lengths, strict=True)]
    return [Whole.of(part, n, Reading(rank, said)) for rank, (part, n) in enumerate(zip(parts, n_envs, strict=True))]


def names_of(batch: Batch, units: np.ndarray) -> list[list[float]]:
    """The transitions of each unit."""
    return [batch.take(th.tensor([unit])).advantages.tolist() for unit in units.tolist()]


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("n_envs", [(2, 2), (1, 3), (2, 1, 2)])
def test_each_unit_has_the_number_that_it_has_in_one_process(n_envs: tuple[int, ...], windows: bool) -> None:
    one, parts = parts_of(n_envs, windows)
    alone = Whole.of(one, sum(n_envs))
    for k in range(1, 4):
        units = every_kth(alone, k)
        expected = names_of(one, alone.own(units))
        found: dict[int, list[float]] = {}
        for part, whole in zip(parts, wholes(parts, n_envs, windows), strict=True):
            assert (whole.n_units, whole.n_states, whole.n_envs) == (alone.n_units, alone.n_states, alone.n_envs)
            np.testing.assert_array_equal(every_kth(whole, k), units)
            assert whole.local is not None
            own = np.flatnonzero(whole.local[units] >= 0)
            found |= dict(zip(own.tolist(), names_of(part, whole.own(units)), strict=True))
            assert whole.n_states_of(units) == alone.n_states_of(units)
        assert [found[i] for i in range(len(units))] == expected


@pytest.mark.parametrize("windows", [False, True])
def test_minibatches_of_all_are_those_of_one(windows: bool) -> None:
    n_envs = (1, 3)
    one, parts = parts_of(n_envs, windows)
    drawn = [list(minibatches(Whole.of(one, 4), 6, np.random.RandomState(2).permutation))]
    drawn += [list(minibatches(whole, 6, np.random.RandomState(2).permutation)) for whole in wholes(parts, n_envs, windows)]
    assert len({len(part) for part in drawn}) == 1
    for whole, *of_parts in zip(*drawn, strict=True):
        assert all(part.n_states == whole.n_states for part in of_parts)
        names = [
            name for batch, part in zip(parts, of_parts, strict=True) for unit in names_of(batch, part.units) for name in unit
        ]
        assert sorted(names) == sorted(name for unit in names_of(one, whole.units) for name in unit)


def test_buffers_of_any_size_are_numbered_one_after_another() -> None:
    zeros = [th.zeros(n) for n in (3, 4)]
    batches = [Batch(States(part), part, part, part, part) for part in zeros]
    whole = Whole.of(batches[1], 2, Reading(1, [(2, 3, 3, None), (2, 4, 4, None)]))
    assert whole.own(np.array([6, 0, 3])).tolist() == [3, 0]


def test_environments_are_numbered_in_the_order_of_the_workers() -> None:
    shares = [Share.of(n, Reading(rank, [2, 1, 4])) for rank, n in enumerate((2, 1, 4))]
    assert shares == [(0, 2, 7), (2, 1, 7), (3, 4, 7)]
    assert [list(range(7))[share.own] for share in shares] == [[0, 1], [2], [3, 4, 5, 6]]
    assert Share.of(3) == (0, 3, 3)


def test_the_first_worker_draws_from_the_global_generator() -> None:
    assert shared_permutation(Alone()) is None
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state()  # noqa: NPY002
    workers = [Reading(rank, [state, None]) for rank in range(2)]
    assert shared_permutation(workers[0]) is None
    other = shared_permutation(workers[1])
    assert other is not None
    for _ in range(2):
        np.testing.assert_array_equal(other(20), np.random.permutation(20))  # noqa: NPY002

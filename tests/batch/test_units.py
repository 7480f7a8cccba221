"""Units stay together: transitions of a feed-forward policy, windows of steps of a recurrent one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States, concatenate
from sb3_trpo.batch.subsets import every_kth, minibatches
from sb3_trpo.batch.whole import Whole

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def windows(*lengths: int, weights: th.Tensor | None = None) -> Batch:
    """A batch whose numbers are the positions of its transitions, and whose memory is the number of the window."""
    rows = th.arange(sum(lengths), dtype=th.float32)
    units = th.arange(len(lengths), dtype=th.float32)
    states = States(
        {"a": rows[:, None], "b": rows[:, None, None] + 0.5},
        action_masks=rows[:, None] % 2 == 0,
        memory=(units[:, None], -units[:, None]),
        episode_starts=rows == 0,
        unit_starts=th.tensor([0, *np.cumsum(lengths)[:-1]]),
    )
    return Batch(states, rows[:, None], rows, rows, rows, weights)


def check(batch: Batch, expected: list[list[int]]) -> None:
    """Check that every tensor of the batch belongs to these transitions, window by window."""
    rows = th.tensor([row for window in expected for row in window], dtype=th.float32)
    assert batch.n_units == len(expected)
    assert batch.states.unit_starts is not None
    edges = [*batch.states.unit_starts.tolist(), len(batch)]
    assert [edges[i + 1] - edges[i] for i in range(len(expected))] == [len(window) for window in expected]
    for part in (batch.advantages, batch.returns, batch.old_log_prob, batch.actions[:, 0]):
        assert th.equal(part, rows)
    assert isinstance(batch.states.observations, dict)
    assert th.equal(batch.states.observations["a"][:, 0], rows)
    assert th.equal(batch.states.observations["b"][:, 0, 0], rows + 0.5)
    assert batch.states.action_masks is not None
    assert th.equal(batch.states.action_masks[:, 0], rows % 2 == 0)
    assert batch.states.episode_starts is not None
    assert th.equal(batch.states.episode_starts, rows == 0)


def test_taking_windows_takes_their_transitions_and_their_memory() -> None:
    batch = windows(3, 1, 2)
    taken = batch.take(th.tensor([2, 0, 2]))
    check(taken, [[4, 5], [0, 1, 2], [4, 5]])
    assert taken.states.memory is not None
    assert taken.states.memory[0].flatten().tolist() == [2.0, 0.0, 2.0]
    assert taken.states.memory[1].flatten().tolist() == [-2.0, 0.0, -2.0]
    check(batch.take(slice(1, None)), [[3], [4, 5]])
    check(batch.take(th.tensor([1, 2])).take(th.tensor([1])), [[4, 5]])
    assert batch.states.rows_of(th.tensor([2, 1])).tolist() == [4, 5, 3]  # type: ignore[union-attr]


@PROPERTY
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), size=st.integers(1, 10))
def test_chunks_are_made_of_whole_windows(lengths: list[int], size: int) -> None:
    batch = windows(*lengths)
    chunks = list(batch.chunks(size))
    assert th.equal(th.cat([chunk.advantages for chunk in chunks]), batch.advantages)
    assert sum(chunk.n_units for chunk in chunks) == len(lengths)
    for chunk, after in zip(chunks, [*chunks[1:], None], strict=True):
        assert len(chunk) <= size or chunk.n_units == 1
        if after is not None:  # the first window of the next chunk had no room
            assert after.states.unit_starts is not None
            first = after.states.unit_starts[1].item() if after.n_units > 1 else len(after)
            assert len(chunk) + first > size


@PROPERTY
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), size=st.integers(1, 10))
def test_minibatches_are_made_of_whole_windows(lengths: list[int], size: int) -> None:
    batch = windows(*lengths)
    parts = [th.from_numpy(units) for units, _ in minibatches(Whole.of(batch, 1), size)]
    assert sorted(th.cat(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        assert len(batch.take(part)) <= size or len(part) == 1


def test_every_kth_window() -> None:
    assert every_kth(Whole.of(windows(3, 1, 2, 4, 1), 4), 2).tolist() == [0, 2, 4]


def test_a_batch_without_windows_has_as_many_units_as_transitions() -> None:
    batch = windows(3, 2)
    plain: Any = Batch(States(batch.advantages[:, None]), batch.actions, batch.old_log_prob, batch.advantages, batch.returns)
    assert plain.n_units == len(plain) == 5
    assert plain.parts(2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert [part.tolist() for part in plain.parts(2, th.tensor([4, 0, 3]))] == [[4, 0], [3]]


@pytest.mark.parametrize(("units", "expected"), [(None, 21.0), ([0], 1.0 + 2.0 + 3.0), ([1, 2], 4.0 + 5.0 + 6.0)])
def test_total_weight(units: list[int] | None, expected: float) -> None:
    positions = None if units is None else th.tensor(units)
    weights = th.arange(1.0, 7.0)
    assert windows(3, 1, 2, weights=weights).total_weight(positions) == expected
    assert windows(3, 1, 2).total_weight(positions) == (6.0 if units is None else 3.0)


def test_weights_are_taken_along_and_multiply_numbers_and_rows() -> None:
    batch = windows(3, 1, 2, weights=th.arange(1.0, 7.0)).take(th.tensor([2, 1]))
    assert batch.weights is not None
    assert batch.weights.tolist() == [5.0, 6.0, 4.0]
    assert batch.weighted(th.ones(3)).tolist() == [5.0, 6.0, 4.0]
    assert batch.weighted(th.ones(3, 2)).tolist() == [[5.0, 5.0], [6.0, 6.0], [4.0, 4.0]]
    ones = th.ones(6)
    assert windows(3, 1, 2).weighted(ones) is ones


@pytest.mark.parametrize(
    ("starts", "weights", "message"),
    [
        ([1, 3], None, "`unit_starts` must ascend from 0"),
        ([0, 3, 3], None, "`unit_starts` must ascend from 0"),
        ([0, 4, 2], None, "`unit_starts` must ascend from 0"),
        ([0, 6], None, "`unit_starts` must ascend from 0 to less than 6"),
        (None, [1.0, 1.0, -1.0, 1.0, 1.0, 1.0], "`weights` must be 6 finite numbers >= 0"),
        (None, [1.0, 1.0, np.nan, 1.0, 1.0, 1.0], "`weights` must be 6 finite numbers >= 0"),
        (None, [1.0, 1.0], "`weights` must be 6 finite numbers >= 0"),
    ],
)
def test_units_and_weights_that_do_not_fit_are_refused(
    starts: list[int] | None, weights: list[float] | None, message: str
) -> None:
    batch = windows(3, 1, 2)
    states = replace(batch.states, unit_starts=None if starts is None else th.tensor(starts))
    batch = replace(batch, states=states, weights=None if weights is None else th.tensor(weights))
    with pytest.raises(ValueError, match=message):
        batch.checked()


def test_a_batch_that_fits_is_returned_as_it_is() -> None:
    batch = windows(3, 1, 2, weights=th.ones(6))
    assert batch.checked() is batch


def test_states_are_joined() -> None:
    batch = windows(1, 1, 1)
    joined = concatenate([batch.take(th.tensor([unit])).states for unit in range(3)])
    check(replace(batch, states=replace(joined, unit_starts=th.arange(3))), [[0], [1], [2]])
    assert joined.memory is not None
    assert joined.memory[0].flatten().tolist() == [0.0, 1.0, 2.0]
    plain = concatenate([States(th.zeros(2, 3)), States(th.ones(1, 3))])
    assert isinstance(plain.observations, th.Tensor)
    assert plain.observations[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert plain.memory is None
    assert plain.action_masks is None

"""Rollouts are cut exactly where episodes begin, and windows begin with the right memory."""

import pytest
import torch as th

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.windows import cut_lengths, in_windows

STARTS = th.tensor([[0, 1], [0, 0], [1, 0], [0, 0]])
"""Environment 0 continues an episode of two steps; environment 1 begins one that goes on."""


def rollout(starts: th.Tensor) -> Batch:
    """Four steps of two environments; the numbers of a transition are 10 * environment + step."""
    n_steps, n_envs = starts.shape
    numbers = (10.0 * th.arange(n_envs) + th.arange(n_steps)[:, None]).flatten()
    states = States(
        {"a": numbers[:, None], "b": -numbers}, action_masks=numbers[:, None] > 5.0, episode_starts=starts.flatten()
    )
    return Batch(states, numbers, numbers, numbers, numbers, weights=numbers)


def test_windows_end_where_an_episode_does() -> None:
    memory = (th.tensor([[1.0], [2.0]]), th.tensor([[3.0], [4.0]]))
    batch = in_windows(rollout(STARTS), 2, memory).checked()
    assert batch.returns.tolist() == [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]
    for numbers in (batch.actions, batch.old_log_prob, batch.advantages, batch.weights):
        assert numbers is not None
        assert th.equal(numbers, batch.returns)
    states = batch.states
    assert isinstance(states.observations, dict)
    assert th.equal(states.observations["a"][:, 0], batch.returns)
    assert th.equal(states.observations["b"], -batch.returns)
    assert states.action_masks is not None
    assert th.equal(states.action_masks[:, 0], batch.returns > 5.0)
    assert states.unit_lengths.tolist() == [2, 2, 4]
    assert states.memory is not None
    assert [part.flatten().tolist() for part in states.memory] == [[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]


def test_windows_are_sorted_by_length() -> None:
    starts = th.tensor([[0, 0], [0, 1], [0, 1], [0, 0], [0, 0]])
    batch = in_windows(rollout(starts), 2, (th.tensor([[1.0], [2.0]]),)).checked()
    assert batch.states.unit_lengths.tolist() == [1, 1, 3, 5]
    assert batch.returns.tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    assert batch.states.memory is not None
    assert batch.states.memory[0].flatten().tolist() == [2.0, 0.0, 0.0, 1.0]


def test_episodes_of_one_step() -> None:
    batch = in_windows(rollout(th.ones(4, 2)), 2, (th.ones(2, 1),)).checked()
    assert batch.states.unit_lengths.tolist() == [1] * 8
    assert batch.states.memory is not None
    assert not batch.states.memory[0].any()


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_memory_of_other_environments_is_refused(n_rows: int) -> None:
    with pytest.raises(ValueError, match="needs the memory of its 2 environments"):
        in_windows(rollout(STARTS), 2, (th.ones(n_rows, 1),))


def test_pieces() -> None:
    lengths, window = cut_lengths(th.tensor([1, 5, 4]), 2)
    assert lengths.tolist() == [1, 2, 2, 1, 2, 2]
    assert window.tolist() == [0, 1, 1, 1, 2, 2]
    lengths, window = cut_lengths(th.tensor([1, 5, 4]), 5)
    assert (lengths.tolist(), window.tolist()) == ([1, 5, 4], [0, 1, 2])

"""Masks are read, or refused by name."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo.distributions.action_masks import MaskLayout, forced_fraction, refuse_forbidden
from tests.toy_envs import ACTIONS


def owner(i: int) -> str:
    return f"mask {i}"


@pytest.mark.parametrize(("actions", "sizes"), [("discrete", (3,)), ("multi_discrete", (2, 3)), ("multi_binary", (2, 2, 2))])
def test_layouts(actions: str, sizes: tuple[int, ...]) -> None:
    layout = MaskLayout.of(ACTIONS[actions])
    assert (layout.sizes, layout.size) == (sizes, sum(sizes))


@pytest.mark.parametrize("space", [ACTIONS["box"], spaces.MultiBinary([2, 3])])
def test_other_spaces_have_no_masks(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match="action masks need a Discrete, a MultiDiscrete or a MultiBinary of one dimension"):
        MaskLayout.of(space)


@pytest.mark.parametrize(
    "masks",
    [
        [[True, False, True], [False, False, True]],
        [np.array([1, 0, 1], dtype=np.int8), np.array([0, 0, 1], dtype=np.int8)],
        [np.array([1.0, 0.0, 1.0]), [0, 0, 1]],
        np.array([[1, 0, 1], [0, 0, 1]]),
        th.tensor([[True, False, True], [False, False, True]]),
    ],
)
def test_masks_of_any_type_are_read(masks: Any) -> None:
    read = MaskLayout((3,)).read(masks, 2, owner)
    assert read.dtype == np.bool_
    assert read.tolist() == [[True, False, True], [False, False, True]]


def test_a_mask_that_the_environment_changes_later_was_copied() -> None:
    mine = np.array([True, False, True])
    read = MaskLayout((3,)).read([mine], 1, owner)
    mine[:] = False
    assert read.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("sizes", "masks", "message"),
    [
        ((3,), [[1, 0, 1], [1, 0]], r"mask 1 must have the shape \(3,\), not \(2,\)"),
        ((3,), [[1, 0, 1]], "there must be 2 action masks, not 1"),
        ((3,), [[[1, 0, 1]], [[1, 0, 1]]], r"mask 0 must have the shape \(3,\), not \(1, 3\)"),
        ((2, 3), [[[1, 1, 0], [1, 0, 1]]] * 2, r"mask 0 must have the shape \(5,\) \(2 \+ 3\), not \(2, 3\)"),
        ((3,), [None, [1, 0, 1]], r"mask 0 must have the shape \(3,\), not \(\)"),
        ((3,), 7, "mask 0 must be a sequence of booleans, not 7"),
        ((3,), [[1, 0, 1], [0.5, 0.0, 1.0]], "mask 1 must have the values 0 and 1, or True and False, only, not .*0.5"),
        ((3,), np.array([[1, 0, 1], [0, 2, 1]], dtype=np.int8), "mask 1 must have the values 0 and 1.*not .*2"),
        ((3,), np.array([[1, 0, 1], [0, -1, 1]], dtype=np.int8), "mask 1 must have the values 0 and 1.*not .*-1"),
        ((3,), [[1.0, 0.0, 1.0], [np.nan, 0.0, 1.0]], "mask 1 must have the values 0 and 1.*not .*nan"),
        ((3,), [[1, 0, 1], [0, 0, 0]], "mask 1 allows no value: at least one must be True"),
        ((2, 3), [[1, 0, 0, 1, 0], [1, 1, 0, 0, 0]], "mask 1 allows no value in dimension 1 of the action"),
        ((2, 2), [[0, 0, 1, 1], [1, 1, 1, 1]], "mask 0 allows no value in dimension 0 of the action"),
    ],
)
def test_anything_else_is_refused_by_name(sizes: tuple[int, ...], masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskLayout(sizes).read(masks, 2, owner)


def test_a_single_mask_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mask 0 allows no value"):
        MaskLayout((3,)).read([np.zeros(3, dtype=bool)], 1, owner)


def test_forbidden_actions_are_found() -> None:
    masks = np.array([[1, 0, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 0, 0, 1]], dtype=bool)
    actions = np.array([[0, 1], [0, 0], [1, 2]])
    assert MaskLayout((2, 3)).forbidden(masks, actions).tolist() == [1]
    assert MaskLayout((5,)).forbidden(masks, np.array([3.0, 2.0, 2.0])).tolist() == [2]
    stacked = np.concatenate([masks[[0, 2]], masks[[0, 1]]]).reshape(2, 2, 5)
    refuse_forbidden(MaskLayout((2, 3)), stacked[:1], actions[[0, 2]][None], 0)
    with pytest.raises(ValueError, match=r"The action \[0, 0\] of environment 1 at step 8 of the rollout is masked"):
        refuse_forbidden(MaskLayout((2, 3)), stacked, np.stack([actions[[0, 2]], actions[[0, 1]]]), 7)


def test_a_state_is_forced_where_every_choice_is() -> None:
    masks = th.tensor([[1, 0, 0, 1, 0], [1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    assert forced_fraction(masks, ACTIONS["multi_discrete"]) == 0.5
    assert forced_fraction(None, ACTIONS["multi_discrete"]) is None

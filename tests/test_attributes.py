"""What is plain data of an object is saved and put back, in place; the rest is told apart."""

import logging
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

from sb3_trpo.attributes import is_constant, is_plain, plain_attributes, set_plain_attributes


class Thing:
    """Has whatever it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Phase(Enum):
    FIRST = 1
    SECOND = 2


def test_plain_attributes_are_copied_both_ways() -> None:
    owner: Any = Thing(array=np.ones(2), nested={"a": [1, (2.0, None)]}, generator=np.random.default_rng(0), other=object())
    saved = plain_attributes(owner)
    assert set(saved.contents[0]) == {"array", "nested", "generator"}
    generator = owner.generator
    drawn = generator.random()
    for _ in range(2):
        owner.array[:], owner.nested["a"][0] = 5.0, 7
        set_plain_attributes(owner, saved)
        np.testing.assert_array_equal(owner.array, np.ones(2))
        assert owner.nested == {"a": [1, (2.0, None)]}
        assert owner.generator is generator
        assert generator.random() == drawn


def test_objects_are_put_back_in_place() -> None:
    part: Any = Thing(phase=Phase.FIRST, generator=random.Random(0), history=deque([1]), inner=Thing(n=3))
    owner: Any = Thing(part=part, parts=[part], draw=part.generator.random)
    part.owner = owner
    saved = plain_attributes(owner)
    inner, drawn = part.inner, owner.draw()
    for _ in range(2):
        part.phase, part.new, part.inner.n = Phase.SECOND, True, 4
        part.history.append(2)
        owner.parts.append(Thing())
        part.inner = Thing(n=5)
        set_plain_attributes(owner, saved)
        assert owner.part is owner.parts[0] is part
        assert len(owner.parts) == 1
        assert part.owner is owner
        assert part.inner is inner
        assert (part.phase, list(part.history), part.inner.n, hasattr(part, "new")) == (Phase.FIRST, [1], 3, False)
        assert owner.draw() == drawn


def test_what_attributes_share_they_go_on_sharing() -> None:
    row = np.zeros(2)
    owner: Any = Thing(row=row, rows=[row], part=Thing(row=row))
    set_plain_attributes(owner, plain_attributes(owner))
    owner.row[0] = 1.0
    assert owner.rows[0][0] == owner.part.row[0] == 1.0


CALLS: list[Callable[..., Any]] = [len, test_objects_are_put_back_in_place, random.Random(0).random, partial(len, [1])]


@pytest.mark.parametrize(
    ("value", "plain", "constant"),
    [
        (3, True, False),
        (np.float32(3.0), True, False),
        (th.zeros(2), True, True),
        (np.array([object()]), False, True),
        (Thing(a=1), True, False),
        (Thing(a=object()), False, False),
        (Thing(a=1, b=len), True, False),
        ([Thing(a=1), {"b": (2,)}], True, False),
        ([object()], False, False),
        (OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2)), True, False),
        (iter([1]), False, False),
        (gym.make("CartPole-v1"), False, False),
        (gym.spaces.Discrete(3), False, True),
        ([gym.spaces.Discrete(3)], False, True),
        (th.nn.Linear(2, 2), False, True),
        (logging.getLogger("test"), False, True),
        *((call, False, True) for call in CALLS),
        ({"reward": len}, False, True),
    ],
)
def test_data_and_constants_are_told_from_what_may_change(value: object, plain: bool, constant: bool) -> None:
    assert is_plain(value, frozenset()) is plain
    assert plain or is_constant(value) is constant

"""All that can change of an object is put back, in place; what nobody knows how to put back is named."""

import itertools
import logging
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

from sb3_trpo.envs.attributes import plain_attributes, set_plain_attributes, what_is_lost


class Thing:
    """Has whatever it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def count(self) -> int:
        self.n = getattr(self, "n", 0) + 1
        return self.n


class Phase(Enum):
    FIRST = 1
    SECOND = 2


def test_plain_attributes_are_copied_both_ways() -> None:
    owner: Any = Thing(array=np.ones(2), nested={"a": [1, (2.0, None)]}, generator=np.random.default_rng(0))
    saved = plain_attributes(owner)
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
    owner: Any = Thing(part=part, parts=[part], draw=part.generator.random, call=len)
    part.owner = owner
    saved = plain_attributes(owner)
    inner, drawn = part.inner, owner.draw()
    for _ in range(2):
        part.phase, part.new, part.inner.n, owner.call = Phase.SECOND, True, 4, max
        part.history.append(2)
        owner.parts.append(Thing())
        part.inner = Thing(n=5)
        set_plain_attributes(owner, saved)
        assert owner.part is owner.parts[0] is part
        assert len(owner.parts) == 1
        assert part.owner is owner
        assert part.inner is inner
        assert (part.phase, list(part.history), part.inner.n, hasattr(part, "new")) == (Phase.FIRST, [1], 3, False)
        assert owner.call is len
        assert owner.draw() == drawn


def test_what_has_come_since_goes_unless_it_is_a_window() -> None:
    owner: Any = Thing()
    saved = plain_attributes(owner)
    owner.n, owner.window = 1, logging.getLogger("window")
    set_plain_attributes(owner, saved)
    assert list(vars(owner)) == ["window"]


def test_attributes_go_back_to_whom_they_came_from() -> None:
    with pytest.raises(AssertionError, match="to whom they came from"):
        set_plain_attributes(Thing(), plain_attributes(Thing()))


def test_what_is_known_is_left_out() -> None:
    known = [1]
    owner: Any = Thing(known=known, n=1)
    saved = plain_attributes(owner, [known])
    known.append(2)
    set_plain_attributes(owner, saved)
    assert owner.known == [1, 2]
    assert what_is_lost(Thing(inner=gym.make("CartPole-v1").unwrapped), []) == "inner"
    inner = gym.make("CartPole-v1").unwrapped
    assert what_is_lost(Thing(inner=inner), [inner]) is None


@dataclass(frozen=True)
class Frozen:
    array: Any


class Slots:
    __slots__ = ("n",)


class SlotsBelow(Slots):
    pass


def view(array: Any) -> tuple[Any, Callable[[], Any]]:
    part = array[:2]

    def read() -> Any:
        array[0] += 1.0
        return float(part[0])

    return Thing(array=array, part=part), read


def noise() -> tuple[Any, Callable[[], Any]]:
    source, generator = OrnsteinUhlenbeckActionNoise(np.ones(1), np.zeros(1)), np.random.RandomState(0)
    return Thing(source=source, generators=[generator]), lambda: (float(source()[0]), generator.normal())


def shared() -> tuple[Any, Callable[[], Any]]:
    numbers = np.zeros(2)
    tensor = th.from_numpy(numbers)
    return Thing(tensor=tensor), lambda: float(tensor.add_(1.0).sum() + numbers.sum())


def containers() -> tuple[Any, Callable[[], Any]]:
    bag: Any = {"set": {1}, "counter": Counter("a"), "lists": defaultdict(list), "pair": ([0], Frozen(np.zeros(1)))}

    def read() -> Any:
        n = len(bag["set"])
        bag["set"].add(n + 1)
        bag["counter"].update("ab")
        bag["lists"][n].append(n)
        bag["pair"][0][0] += 1
        bag["pair"][1].array[0] += 1
        return repr(bag)

    return Thing(bag=bag), read


def methods() -> tuple[Any, Callable[[], Any]]:
    history: list[int] = []
    owner: Any = Thing(
        step=Thing().count, add=history.append, more=partial(Thing.count, Thing()), draw=np.random.default_rng(0).random
    )
    return owner, lambda: (owner.step(), owner.add(1), len(history), owner.more(), owner.draw())


def grid() -> tuple[Any, Callable[[], Any]]:
    cells: list[list[Any]] = [[Thing() for _ in range(30)] for _ in range(30)]
    for i, j in itertools.product(range(30), repeat=2):
        cells[i][j].near = [cells[(i + 1) % 30][j], cells[i][(j + 1) % 30]]
    return Thing(cell=cells[0][0]), cells[9][9].count


CHANGES: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {
    "view of an array": lambda: view(np.zeros(4)),
    "noise": noise,
    "tensor and array": shared,
    "containers": containers,
    "methods": methods,
    "cells that know each other": grid,
    "space": lambda: (lambda space: (Thing(space=space), space.sample))(gym.spaces.Discrete(10**9, seed=0)),
    "generator of torch": lambda: (lambda g: (Thing(g=g), lambda: th.rand(1, generator=g).item()))(th.Generator()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_next_steps_are_the_same_again(name: str) -> None:
    owner, step = CHANGES[name]()
    step()
    saved = plain_attributes(owner)
    first = [step() for _ in range(3)]
    assert len({repr(value) for value in first}) == 3
    for _ in range(2):
        set_plain_attributes(owner, saved)
        assert [step() for _ in range(3)] == first
    assert what_is_lost(owner, []) is None


KNOWN: list[Any] = [
    *(
        len,
        partial(len, [1]),
        th.nn.Linear(2, 2),
        logging.getLogger("test"),
        gym.spec("CartPole-v1"),
        [("distance", len, 1.0)],
    ),
    *(range(3), frozenset({1}), np.dtype("f4"), th.zeros(2, requires_grad=True) * 2.0, random.SystemRandom()),
]
UNKNOWN: list[Any] = [
    iter([1]),
    Slots(),
    SlotsBelow(),
    np.array([object()]),
    [{"a": iter([1])}],
    Thing(a=(Slots(),)),
    itertools.count(),
]


def test_what_cannot_be_put_back_is_named() -> None:
    assert [what_is_lost(Thing(value=value), []) for value in KNOWN] == [None] * len(KNOWN)
    assert [what_is_lost(Thing(value=value), []) for value in UNKNOWN] == ["value"] * len(UNKNOWN)

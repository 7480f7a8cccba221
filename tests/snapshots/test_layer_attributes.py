"""Plain data is copied on saving and restoring; constants stay, and everything else is refused by name."""

import logging
import pickle
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_trpo.snapshots.layer_attributes import LayerAttributes


class Thing:
    """Has the given attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Phase(Enum):
    FIRST = 1
    SECOND = 2


class Pair(NamedTuple):
    first: Any
    second: Any


class MyList(list[int]):
    pass


def change_containers(thing: Any) -> Any:
    thing.nested["a"][0] += 1
    thing.nested["array"][0] += 1.0
    thing.history.append(len(thing.history))
    thing.lists["new"].append(1)
    thing.counter.update("b")
    thing.seen.add(len(thing.seen))
    return repr(vars(thing))


def count(thing: Any) -> Any:
    thing.n = getattr(thing, "n", 0) + 1
    return thing.n


def rename(thing: Any) -> Any:
    name, n = vars(thing).popitem()
    setattr(thing, f"x{n + 1}", n + 1)
    return name


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "array": (lambda: Thing(array=np.zeros(2)), lambda t: t.array.__iadd__(1.0).sum()),
    "tensor": (lambda: Thing(tensor=th.zeros(2)), lambda t: t.tensor.add_(1.0).sum().item()),
    "containers": (
        lambda: Thing(
            nested={"a": [1, (2.0, None)], "array": np.zeros(1)},
            history=deque([1], maxlen=3),
            lists=defaultdict(list),
            counter=Counter("a"),
            seen={0},
            ordered=OrderedDict(a=1),
            constant=frozenset({1}),
        ),
        change_containers,
    ),
    "NumPy's generator": (lambda: Thing(g=np.random.default_rng(0)), lambda t: t.g.random()),
    "another of NumPy's": (lambda: Thing(g=np.random.Generator(np.random.MT19937(0))), lambda t: t.g.random()),
    "NumPy's old generator": (lambda: Thing(g=np.random.RandomState(0)), lambda t: t.g.normal()),
    "Python's generator": (lambda: Thing(g=random.Random(0)), lambda t: t.g.gauss()),
    "torch's generator": (lambda: Thing(g=th.Generator()), lambda t: th.rand(1, generator=t.g).item()),
    "generators in a list": (
        lambda: Thing(g=[np.random.default_rng(0), random.Random(0)]),
        lambda t: [g.random() for g in t.g],
    ),
    "method of a generator": (lambda: Thing(draw=np.random.default_rng(0).random, n=1), lambda t: t.draw()),
    "method of an old generator": (lambda: Thing(draw=np.random.RandomState(0).uniform, n=1), lambda t: t.draw()),
    "attribute that comes": (Thing, count),
    "attribute that goes and another that comes": (lambda: Thing(place=0.0, x0=0), rename),
    "phase": (
        lambda: Thing(n=0, phase=Phase.FIRST),
        lambda t: vars(t).update(n=t.n + 1, phase=Phase.SECOND if t.n else Phase.FIRST) or (t.n, t.phase),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_restored_attributes_repeat_their_changes(name: str) -> None:
    make, step = CHANGES[name]
    thing = make()
    attributes = LayerAttributes(thing, [])
    step(thing)
    saved = attributes.get()
    first = [step(thing) for _ in range(3)]
    assert len({repr(value) for value in first}) == 3
    for _ in range(2):
        attributes.set(saved)
        assert [step(thing) for _ in range(3)] == first
    again = make()
    if hasattr(again, "draw"):
        again.draw()  # the method of another generator
    LayerAttributes(again, []).set(pickle.loads(pickle.dumps(saved)))
    assert [step(again) for _ in range(3)] == first


def test_generators_are_restored_in_place() -> None:
    generator = np.random.default_rng(0)
    thing = Thing(generator=generator, n=1)
    attributes = LayerAttributes(thing, [])
    saved = attributes.get()
    drawn = generator.random()
    attributes.set(saved)
    assert vars(thing)["generator"] is generator
    assert generator.random() == drawn


def test_constant_attributes_are_left_alone() -> None:
    cart = gym.make("CartPole-v1").unwrapped
    constant = {
        "function": len,
        "method": cart.reset,
        "kind": int,
        "module": np,
        "space": gym.spaces.Discrete(2),
        "logger": logging.getLogger("test"),
        "other": cart,
        "spec": gym.spec("CartPole-v1"),
    }
    thing = Thing(n=1, window=iter([1]), **constant)
    attributes = LayerAttributes(thing, ["window"], [cart])
    saved = attributes.get()
    thing.n = 2  # type: ignore[attr-defined]
    attributes.set(saved)
    assert thing.n == 1  # type: ignore[attr-defined]
    assert all(vars(thing)[name] is value for name, value in constant.items())
    pickle.dumps(saved)


REFUSED: list[Any] = [
    *(iter([1]), Thing(), np.array([object()]), [{"a": iter([1])}], (Thing(),), MyList([1]), Pair(1, 2)),
    *(gym.make("CartPole-v1"), [].append, th.nn.Linear(2, 2), np.ma.masked_array([1.0])),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_an_attribute_that_is_not_plain_data_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Thing cannot be saved and restored: its attribute `value` .*get_state\(\)"):
        LayerAttributes(Thing(value=value), []).get()

"""
The state of a Python object: all that its attributes lead to and that can change, each with a copy that is put back in place.

So whoever else holds one of these, a view of an array or a method of a generator, sees the same one again.
"""

import datetime
import decimal
import fractions
import functools
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import BuiltinMethodType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv


class Changing(NamedTuple):
    """
    Something that can change.

    :param thing: an array, a generator, a list, an object, …
    :param copy: of what it holds; things within it stand for themselves
    """

    thing: Any
    copy: Any


State = list[Changing]


class _Holder(NamedTuple):
    """
    What a container or an object holds.

    :param contents: of a container; None: it is none
    :param attributes: by name
    """

    contents: Any
    attributes: dict[str, Any]


class _Plain:
    """An object that has its attributes in ``__dict__`` and nothing elsewhere."""


_VALUES = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, EllipsisType, Enum, np.generic, np.dtype),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal, fractions.Fraction, uuid.UUID),
)
_CONSTANT = (type, ModuleType, FunctionType, np.ufunc, th.nn.Module, BaseAlgorithm, random.SystemRandom)
_LIBRARIES = (
    *("gymnasium.envs.", "mujoco.", "ale_py.", "pygame.", "torch."),
    *("logging.", "pathlib.", "re.", "threading.", "_thread.", "weakref."),
)
"""Their objects do not change from step to step, or only show the state: models, windows, loggers, locks."""

_OWN_COPY: list[tuple[type, Callable[[Any], Any], Callable[[Any, Any], object]]] = [
    (np.ndarray, lambda array: array.copy(), lambda array, copy: array.__setitem__(..., copy)),
    (th.Tensor, lambda tensor: tensor.detach().clone(), lambda tensor, copy: tensor.detach().copy_(copy)),
    (th.Generator, lambda generator: generator.get_state(), lambda generator, copy: generator.set_state(copy)),
    (np.random.BitGenerator, lambda bits: bits.state, lambda bits, copy: setattr(bits, "state", copy)),
    (np.random.RandomState, lambda generator: generator.get_state(), lambda generator, copy: generator.set_state(copy)),
    (random.Random, lambda generator: generator.getstate(), lambda generator, copy: generator.setstate(copy)),
]
"""Kinds of things that hold no others: how they are copied, and how a copy is put back."""


def plain_attributes(owner: object, known: Iterable[object] = ()) -> State:
    """
    Copy all that an object's attributes lead to and that can change: arrays, tensors, random generators, lists, sets, deques,
    dicts and objects of these. Functions, networks, models and renderers are taken as constant.

    :param owner: an environment, say
    :param known: what is saved elsewhere
    :return: for :func:`set_plain_attributes`
    """
    return [found for found in _walk(owner, known) if isinstance(found, Changing)]


def what_is_lost(owner: object, known: Iterable[object]) -> str | None:
    """
    :param owner: an environment, say
    :param known: what is saved elsewhere
    :return: the first attribute that leads to something of which nobody knows how it changes; None: there is none
    """
    return next((found for found in _walk(owner, known) if isinstance(found, str)), None)


def set_plain_attributes(owner: object, saved: State) -> None:
    """
    Put everything back; what is saved stays as it is.

    :param owner: that of :func:`plain_attributes`
    :param saved: what that gave
    """
    assert owner is saved[0].thing, "attributes go back to whom they came from"
    hashed = []
    for found in saved:
        if isinstance(found.thing, (dict, set)):  # when the objects in it have the hash again that they had
            hashed.append(found)
        else:
            _put_back(*found)
    for found in hashed:
        _put_back(*found)


def _walk(owner: object, known: Iterable[object]) -> Iterator[Changing | str]:
    """What can change, the owner first; names of the owner's attributes that lead to something unknown."""
    attributes = _without_links(owner)
    yield Changing(owner, _Holder(None, attributes))
    seen = {id(owner), *map(id, known)}
    ahead = list(attributes.items())
    while ahead:
        name, value = ahead.pop()
        if id(value) in seen or _is_constant(value):
            continue
        seen.add(id(value))
        parts = _parts_of_the_unchangeable(value)
        if parts is None:
            copy = None if isinstance(value, (gym.Env, VecEnv)) else _copy(value)
            if copy is None:
                yield name
                continue
            yield Changing(value, copy)
            parts = _parts(copy)
        ahead += [(name, part) for part in parts]


def _without_links(owner: object) -> dict[str, Any]:
    """All attributes but the next layers inward, and what a step has given out."""
    left_out = ("env", "envs", "venv", "buf_infos") if isinstance(owner, (gym.Wrapper, VecEnv)) else ()
    return {name: value for name, value in vars(owner).items() if name not in left_out}


def _is_constant(value: object) -> bool:
    if isinstance(value, (*_VALUES, *_CONSTANT)):
        return True
    if isinstance(value, np.ndarray):
        return not (value.flags.writeable or value.dtype.hasobject)
    return _is_of_a_library(value)


def _is_of_a_library(value: object) -> bool:
    if isinstance(value, (th.Tensor, th.Generator, gym.Env)) or type(value).__qualname__ == "MjData":
        return False
    return f"{type(value).__module__}.".startswith(_LIBRARIES)


def _parts_of_the_unchangeable(value: Any) -> Iterable[Any] | None:
    """What it holds, if it will always hold the same."""
    if isinstance(value, (tuple, frozenset)):
        return value
    if isinstance(value, (MethodType, BuiltinMethodType)):
        return (value.__self__,)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, np.random.Generator):
        return (value.bit_generator,)
    return None


def _copy(value: Any) -> Any:
    """A copy for :func:`_put_back`; None if nobody knows how."""
    for kind, copy, _ in _OWN_COPY:
        if isinstance(value, kind):
            unknown = isinstance(value, np.ndarray) and (value.dtype.hasobject or getattr(value, "__dict__", None))
            return None if unknown and not isinstance(value, np.memmap) else copy(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(value, dict):
        contents: Any = dict(value)
    elif isinstance(value, (list, set, deque)):
        contents = list(value)
    elif attributes is None or type(value).__basicsize__ > _Plain.__basicsize__:
        return None
    else:
        contents = None
    return _Holder(contents, {} if attributes is None or attributes is value else dict(attributes))


def _parts(copy: Any) -> Iterable[Any]:
    if not isinstance(copy, _Holder):
        return ()
    contents = copy.contents or ()
    inside = [*contents.keys(), *contents.values()] if isinstance(contents, dict) else contents
    return [*inside, *copy.attributes.values()]


def _put_back(thing: Any, copy: Any) -> None:
    for kind, _, put_back in _OWN_COPY:
        if isinstance(thing, kind):
            put_back(thing, copy)
            return
    if copy.contents is not None:
        thing.clear()
        (thing.extend if isinstance(thing, (list, deque)) else thing.update)(copy.contents)
    attributes = getattr(thing, "__dict__", None)
    if attributes is None or attributes is thing:
        return
    for name in _without_links(thing).keys() - copy.attributes.keys():  # not a window that has been opened since
        if not _is_of_a_library(attributes[name]):
            del attributes[name]
    attributes.update(copy.attributes)

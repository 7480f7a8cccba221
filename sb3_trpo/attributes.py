"""
The state of a Python object in its attributes: what of them is data, a copy of it, and how it is put back.

Objects are put back in place, random generators too, so whoever else holds one, or a method of it, sees the same one again.
"""

import copy
import random
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

_DATA = (
    *(type(None), bool, int, float, complex, str, bytes, Enum, np.generic, th.Tensor),
    *(np.random.Generator, np.random.RandomState, random.Random),
)
_CONTAINERS = (dict, list, tuple, set, deque)
_LIBRARIES = (
    *("gymnasium.spaces.", "gymnasium.envs.", "mujoco.", "ale_py.", "pygame.", "torch.", "numpy."),
    *("logging.", "pathlib.", "re.", "threading.", "_thread."),
)
"""Their objects, but for the data above, do not change from step to step, or only show the state: models, windows, loggers."""


class Attributes(NamedTuple):
    """
    Attributes that are plain data: numbers, strings, arrays, random generators, and lists, tuples, sets, deques, dicts and
    objects of these.

    :param owners: the owner, and the objects among its attributes or within them
    :param names: of all attributes of each
    :param contents: of each the plain ones by name; in them objects stand for themselves
    """

    owners: list[Any]
    names: list[frozenset[str]]
    contents: list[dict[str, Any]]


def plain_attributes(owner: object) -> Attributes:
    """
    Copy the attributes that are plain data. What they share they go on sharing. Others (spaces, models, renderers) are taken
    as constant.

    :param owner: an environment, say
    :return: for :func:`set_plain_attributes`
    """
    owners, contents = zip(*_objects(owner), strict=True)
    names = [frozenset(vars(found)) for found in owners]
    return Attributes(list(owners), names, copy.deepcopy(list(contents), {id(found): found for found in owners}))


def set_plain_attributes(owner: object, saved: Attributes) -> None:
    """
    Put the attributes back, and take away plain ones that have come since; what is saved stays as it is.

    :param owner: that of :func:`plain_attributes`
    :param saved: what that gave
    """
    assert owner is saved.owners[0], "attributes go back to whom they came from"
    kept = {id(one): one for one in saved.owners}
    for one, content in zip(saved.owners, saved.contents, strict=True):
        for name, value in content.items():
            current = vars(one).get(name)
            if _set_generator(current, value):
                kept[id(value)] = current
    for one, names, content in zip(saved.owners, saved.names, copy.deepcopy(saved.contents, kept), strict=True):
        for name in vars(one).keys() - names:
            if is_plain(vars(one)[name], frozenset({id(one)})):
                del vars(one)[name]
        vars(one).update(content)


def _set_generator(current: object, saved: object) -> bool:
    """Put a random generator into a saved state; False if they are none, or not of a kind."""
    if isinstance(saved, np.random.Generator) and isinstance(current, np.random.Generator):
        current.bit_generator.state = saved.bit_generator.state
    elif isinstance(saved, np.random.RandomState) and isinstance(current, np.random.RandomState):
        current.set_state(saved.get_state())
    elif isinstance(saved, random.Random) and isinstance(current, random.Random):
        current.setstate(saved.getstate())
    else:
        return False
    return True


def is_plain(value: object, within: frozenset[int]) -> bool:
    """
    :param value: anything
    :param within: identities of what it is a part of, the owner first: an object may know its owner
    :return: whether it is plain data through and through, but for constant attributes of objects
    """
    if isinstance(value, _DATA) or id(value) in within:
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    within |= {id(value)}
    if isinstance(value, _CONTAINERS):
        return all(is_plain(part, within) for part in _parts(value))
    if is_constant(value) or isinstance(value, gym.Env) or not hasattr(value, "__dict__"):
        return False
    return all(is_plain(part, within) or is_constant(part) for part in vars(value).values())


def is_constant(value: object) -> bool:
    """
    :param value: what is not plain
    :return: whether it can be left alone: functions, modules, networks, and what the libraries make
    """
    if isinstance(value, _CONTAINERS):
        return all(is_constant(part) for part in _parts(value))
    if isinstance(value, gym.Env):
        return False
    if isinstance(value, (type, ModuleType, th.nn.Module)) or f"{type(value).__module__}.".startswith(_LIBRARIES):
        return True
    # functions are; an object that can be called is not
    return callable(value) and not any(isinstance(vars(cls).get("__call__"), FunctionType) for cls in type(value).__mro__)


def _parts(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _objects(owner: object) -> Iterator[tuple[object, dict[str, Any]]]:
    """The owner, and the objects with attributes in its plain data, each once; with their plain attributes."""
    seen, ahead = set(), [owner]
    while ahead:
        value = ahead.pop()
        if isinstance(value, (*_DATA, np.ndarray)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _CONTAINERS):
            ahead += _parts(value)
        else:
            within = frozenset({id(value)})
            plain = {name: part for name, part in vars(value).items() if is_plain(part, within)}
            yield value, plain
            ahead += plain.values()

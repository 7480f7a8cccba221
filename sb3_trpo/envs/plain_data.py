"""Plain data: numbers, strings, arrays, random generators and containers of these, which can be saved by value and pickled."""

import datetime
import decimal
import fractions
import random
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable
from enum import Enum
from functools import cache
from types import EllipsisType, NoneType
from typing import Any, NamedTuple, cast

import numpy as np
import torch as th

IMMUTABLE: frozenset[type] = frozenset(
    [
        *(NoneType, bool, int, float, complex, str, bytes, range, slice, EllipsisType),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone),
        *(decimal.Decimal, fractions.Fraction, uuid.UUID),
    ]
)
"""Types whose values never change. A subclass may hold more than its value, so it does not count."""


class NotPlainError(TypeError):
    """A value is not plain data."""


class GeneratorState(NamedTuple):
    """
    The state of a random generator in place of the generator.

    :param kind: what generator, by name
    :param state: as the generator gives it
    """

    kind: str
    state: Any


class _GeneratorKind(NamedTuple):
    """How the state of one kind of generator is read and set, and how a new generator is made."""

    name: str
    get: Callable[[Any], Any]
    set: Callable[[Any, Any], object]
    make: Callable[[Any], Any]


def _set_bits(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


_GENERATORS: dict[type, _GeneratorKind] = {
    np.random.Generator: _GeneratorKind(
        "numpy.Generator",
        lambda generator: generator.bit_generator.state,
        _set_bits,
        lambda state: np.random.Generator(getattr(np.random, state["bit_generator"])()),
    ),
    np.random.RandomState: _GeneratorKind(
        "numpy.RandomState",
        lambda generator: generator.get_state(legacy=False),
        lambda generator, state: generator.set_state(state),
        lambda state: np.random.RandomState(getattr(np.random, state["bit_generator"])()),
    ),
    random.Random: _GeneratorKind(
        "random.Random",
        lambda generator: generator.getstate(),
        lambda generator, state: generator.setstate(state),
        lambda state: random.Random(),
    ),
    th.Generator: _GeneratorKind(
        "torch.Generator",
        lambda generator: generator.get_state().numpy(),
        lambda generator, state: generator.set_state(th.from_numpy(state)),
        lambda state: th.Generator(),
    ),
}
_TYPES = {kind.name: generator_type for generator_type, kind in _GENERATORS.items()}


def is_generator(value: Any) -> bool:
    """
    Tell random generators from everything else.

    :param value: anything
    :return: whether it is a generator of NumPy, Python or torch
    """
    return type(value) in _GENERATORS


def generator_state(generator: Any) -> GeneratorState:
    """
    Save a random generator.

    :param generator: one that :func:`is_generator` accepts
    :return: its state
    """
    kind = _GENERATORS[type(generator)]
    return GeneratorState(kind.name, kind.get(generator))


def set_generator(generator: Any, saved: GeneratorState) -> Any:
    """
    Restore a random generator in place, so that all who hold it see its state.

    :param generator: the generator; one of another kind, or None, is replaced by a new generator
    :param saved: its state
    :return: the generator
    """
    kind = _GENERATORS[_TYPES[saved.kind]]
    if type(generator) is not _TYPES[saved.kind] or not _takes(generator, saved.state):
        generator = kind.make(saved.state)
    kind.set(generator, saved.state)
    return generator


def _takes(generator: Any, state: Any) -> bool:
    """Whether the state is one of this generator's algorithm: PCG64 does not take the state of MT19937."""
    if not isinstance(generator, np.random.Generator):
        return True
    algorithm: str = state["bit_generator"]
    return type(generator.bit_generator).__name__ == algorithm


def freeze(value: Any) -> Any:
    """
    Copy plain data.

    :param value: plain data
    :return: a copy, with states in place of random generators
    :raises NotPlainError: if it holds anything else
    """
    freeze_kind, _ = _functions(cast(Hashable, type(value)))
    return freeze_kind(value)


def thaw(frozen: Any) -> Any:
    """
    Copy frozen data back; what is frozen stays as it is.

    :param frozen: what :func:`freeze` returned
    :return: a copy, with new random generators in place of states
    """
    _, thaw_kind = _functions(cast(Hashable, type(frozen)))
    return thaw_kind(frozen)


def _same(value: Any) -> Any:
    return value


def _copy_array(value: np.ndarray) -> np.ndarray:
    if value.dtype.hasobject:
        raise NotPlainError
    return value.copy()


def _refuse(value: Any) -> Any:
    raise NotPlainError


def _container(make: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return lambda value: make(map(freeze, value)), lambda value: make(map(thaw, value))


def _mapping(make: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return (
        lambda value: make({freeze(key): freeze(part) for key, part in value.items()}),
        lambda value: make({key: thaw(part) for key, part in value.items()}),
    )


_CONTAINERS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    np.ndarray: (_copy_array, _copy_array),
    th.Tensor: (lambda value: value.detach().clone(), lambda value: value.clone()),
    **{kind: _container(kind) for kind in (tuple, list, set, frozenset)},
    **{kind: _mapping(kind) for kind in (dict, OrderedDict, Counter)},
    deque: (
        lambda value: deque(map(freeze, value), value.maxlen),
        lambda value: deque(map(thaw, value), value.maxlen),
    ),
    defaultdict: (
        lambda value: defaultdict(value.default_factory, {freeze(key): freeze(part) for key, part in value.items()}),
        lambda value: defaultdict(value.default_factory, {key: thaw(part) for key, part in value.items()}),
    ),
    GeneratorState: (_refuse, lambda saved: set_generator(None, saved)),
    **dict.fromkeys(_GENERATORS, (generator_state, _refuse)),
}


@cache
def _functions(kind: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How values of a type are frozen and thawed."""
    if kind in _CONTAINERS:
        return _CONTAINERS[kind]
    numpy_scalar = issubclass(kind, np.generic) and kind.__module__ == "numpy"
    if kind in IMMUTABLE or numpy_scalar or issubclass(kind, (Enum, np.dtype)):
        return _same, _same
    return _refuse, _refuse

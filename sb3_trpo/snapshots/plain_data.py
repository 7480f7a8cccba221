"""Copy plain data by value: numbers, strings, arrays, random generators and containers of these."""

import datetime
import decimal
import fractions
import random
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from types import EllipsisType, NoneType
from typing import Any, NamedTuple

import numpy as np
import torch as th

IMMUTABLE: frozenset[type] = frozenset(
    [
        *(NoneType, bool, int, float, complex, str, bytes, range, slice, EllipsisType),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone),
        *(decimal.Decimal, fractions.Fraction, uuid.UUID),
        *(kind for kind in np.ScalarType if issubclass(kind, np.generic)),
    ]
)
"""Types whose values never change. Subclasses do not count, because they may hold more than their value."""


class NotPlainError(TypeError):
    """Reports a value that is not plain data."""


class GeneratorState(NamedTuple):
    """
    Holds the state of a random generator in place of the generator.

    :param kind: name of the kind of generator
    :param state: the state in the generator's own format
    """

    kind: str
    state: Any


class _GeneratorKind(NamedTuple):
    """Holds the functions that read and set the state of one kind of generator, and that make a new one."""

    name: str
    get: Callable[[Any], Any]
    set: Callable[[Any, Any], object]
    make: Callable[[Any], Any]


def _set_bits(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


def _bit_generator(state: Any) -> Any:
    """Make the source of random bits that a state, maybe of a file, names."""
    name = state["bit_generator"]
    kind = getattr(np.random, name, None)
    if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
        raise ValueError(f"a random generator has a state of the unknown kind {name!r}")
    return kind()


_GENERATORS: dict[type, _GeneratorKind] = {
    np.random.Generator: _GeneratorKind(
        "numpy.Generator",
        lambda generator: generator.bit_generator.state,
        _set_bits,
        lambda state: np.random.Generator(_bit_generator(state)),
    ),
    np.random.RandomState: _GeneratorKind(
        "numpy.RandomState",
        lambda generator: generator.get_state(legacy=False),
        lambda generator, state: generator.set_state(state),
        lambda state: np.random.RandomState(_bit_generator(state)),
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
    Tell whether a value is a random generator.

    :param value: any value
    :return: whether it is a generator of NumPy, Python or torch
    """
    return type(value) in _GENERATORS


def _numpy_state(generator: np.random.Generator) -> GeneratorState:
    return GeneratorState("numpy.Generator", generator.bit_generator.state)


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
    Restore a random generator in place, so that every object that holds it sees its state.

    :param generator: the generator; None or a generator of another kind is replaced by a new one
    :param saved: state of the generator
    :return: the restored generator
    """
    kind_of_generator = _TYPES[saved.kind]
    kind = _GENERATORS[kind_of_generator]
    if type(generator) is not kind_of_generator or not _accepted(kind, generator, saved.state):
        generator = kind.make(saved.state)
        kind.set(generator, saved.state)
    return generator


def _accepted(kind: _GeneratorKind, generator: Any, state: Any) -> bool:
    """Set the state and tell whether it fits: PCG64, for example, does not take the state of MT19937."""
    try:
        kind.set(generator, state)
    except ValueError:
        return False
    return True


def freeze(value: Any) -> Any:
    """
    Copy plain data.

    :param value: plain data
    :return: a copy, with states in place of random generators
    :raises NotPlainError: if the value is or holds anything else
    """
    kind = type(value)
    return value if kind in IMMUTABLE else (FREEZE.get(kind) or _freeze_other(kind))(value)


def thaw(frozen: Any) -> Any:
    """
    Copy frozen data back without changing it.

    :param frozen: a result of :func:`freeze`
    :return: a copy, with new random generators in place of states
    """
    return THAW.get(type(frozen), _same)(frozen)


def _freeze_other(kind: type) -> Callable[[Any], Any]:
    """
    Find the function that freezes values of a type without an entry in ``FREEZE``.

    :param kind: the type
    :return: the function that returns such a value, or refuses it
    """
    return _same if kind in IMMUTABLE or issubclass(kind, (Enum, np.dtype)) else _refuse


def _same(value: Any) -> Any:
    return value


def _copy_array(value: np.ndarray) -> np.ndarray:
    if value.dtype.hasobject:
        raise NotPlainError
    return value.copy()


def _refuse(value: Any) -> Any:
    raise NotPlainError


def _freeze_mapping(value: Any) -> Any:
    items = {freeze(key): freeze(part) for key, part in value.items()}
    return items if type(value) is dict else type(value)(items)


def _thaw_mapping(frozen: Any) -> Any:
    items = {key: thaw(part) for key, part in frozen.items()}
    return items if type(frozen) is dict else type(frozen)(items)


FREEZE: dict[type, Callable[[Any], Any]] = {
    np.ndarray: _copy_array,
    th.Tensor: lambda value: value.detach().clone(),
    list: lambda value: [freeze(part) for part in value],
    tuple: lambda value: value if IMMUTABLE.issuperset(map(type, value)) else tuple([freeze(part) for part in value]),
    set: lambda value: set(map(freeze, value)),
    frozenset: lambda value: frozenset(map(freeze, value)),
    deque: lambda value: deque(map(freeze, value), value.maxlen),
    dict: _freeze_mapping,
    OrderedDict: _freeze_mapping,
    Counter: _freeze_mapping,
    defaultdict: lambda value: defaultdict(value.default_factory, _freeze_mapping(dict(value))),
    **dict.fromkeys(_GENERATORS, generator_state),
    np.random.Generator: _numpy_state,  # the same, but faster: nearly every environment has one
}
"""Functions that freeze plain data that can change in place, by type."""
THAW: dict[type, Callable[[Any], Any]] = {
    np.ndarray: np.ndarray.copy,
    th.Tensor: th.Tensor.clone,
    list: lambda frozen: [thaw(part) for part in frozen],
    tuple: lambda frozen: frozen if IMMUTABLE.issuperset(map(type, frozen)) else tuple([thaw(part) for part in frozen]),
    set: set,
    frozenset: frozenset,
    deque: lambda frozen: deque(map(thaw, frozen), frozen.maxlen),
    dict: _thaw_mapping,
    OrderedDict: _thaw_mapping,
    Counter: _thaw_mapping,
    defaultdict: lambda frozen: defaultdict(frozen.default_factory, _thaw_mapping(dict(frozen))),
    GeneratorState: lambda saved: set_generator(None, saved),
}
"""Functions that thaw frozen data that can change in place, by type."""

"""The attributes of one layer of an environment, saved by value: plain data is copied, constants stay, all else is refused."""

import logging
import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_trpo.envs.plain_data import (
    FREEZE,
    IMMUTABLE,
    THAW,
    GeneratorState,
    NotPlainError,
    freeze,
    is_generator,
    set_generator,
    thaw,
)

_CONSTANT = (gym.Space, EnvSpec, type, ModuleType, FunctionType, np.ufunc, re.Pattern, pathlib.PurePath, logging.Logger)
"""Types of attributes that are left as they are. Spaces have generators, which are saved apart."""
_METHODS = (MethodType, BuiltinFunctionType, type(np.random.default_rng(0).random), type(np.random.RandomState(0).random))


def cannot_be_saved(layer: object, why: str = "") -> str:
    """
    Say that the state of a layer is out of reach, and what to do.

    :param layer: an environment or a wrapper
    :param why: the reason, a clause
    :return: the message
    """
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    reason = f": {why}" if why else ""
    return (
        f"the state of {name} cannot be saved and restored{reason}; give it methods get_state() and set_state(state), "
        "or call sb3_trpo.register_simulator with its class and two such functions"
    )


_THAW_ALONE = {kind: function for kind, function in THAW.items() if kind is not GeneratorState}
"""A generator is restored in place, so the present one is needed."""


class OneNumber:
    """
    The only attribute of a layer that its own class changes, if it is a number or a truth value.

    :param layer: the environment or wrapper
    :param name: name of the attribute
    """

    def __init__(self, layer: Any, name: str) -> None:
        self._attributes = vars(layer)
        self._name = name

    def get(self) -> float | None:
        """
        Save the attribute.

        :return: its value
        """
        number: float | None = self._attributes[self._name]
        return number

    def set(self, value: float | None) -> None:
        """
        Restore the attribute.

        :param value: what :meth:`get` returned
        """
        self._attributes[self._name] = value


class NamedAttributes:
    """
    The attributes of a layer that its own class changes.

    :param layer: the environment or wrapper
    :param names: names of the attributes, which hold plain data
    """

    def __init__(self, layer: Any, names: tuple[str, ...]) -> None:
        self._attributes = vars(layer)
        self._names = names

    def get(self) -> dict[str, Any]:
        """
        Save the attributes.

        :return: plain data by name; those that there are
        """
        attributes = self._attributes
        return {name: freeze(attributes[name]) for name in self._names if name in attributes}

    def set(self, saved: dict[str, Any]) -> None:
        """
        Restore the attributes.

        :param saved: what :meth:`get` returned
        """
        for name in self._names:
            if name in saved:
                self._attributes[name] = thaw(saved[name])
            else:
                self._attributes.pop(name, None)


class Stays(NamedTuple):
    """In place of an attribute that is left as it is."""


class AttributesState(NamedTuple):
    """
    The attributes of one layer.

    :param names: their names
    :param values: plain data, :class:`Stays`, or the states of random generators
    """

    names: tuple[str, ...]
    values: Sequence[Any]


class LayerAttributes:
    """
    All attributes of a layer that may change.

    Most are numbers. As long as the attributes are of the same types as the last time, which is nearly always, only those
    that can change in place are looked at one by one.

    :param layer: the environment or wrapper
    :param constant: names of attributes that are no state, or that are saved elsewhere
    :param layers: the other layers; attributes that hold one of them are constant
    """

    def __init__(self, layer: Any, constant: Collection[str], layers: Collection[Any] = ()) -> None:
        self._layer = layer
        self._attributes = vars(layer)
        self._constant = frozenset(constant)
        self._layers = {id(other) for other in (layer, *layers)}
        self._find_names()
        self._to_freeze, self._to_thaw = _Mutable(FREEZE), _Mutable(_THAW_ALONE)

    def _find_names(self) -> None:
        attributes = self._attributes
        self._n_attributes = len(attributes)
        self._names = tuple([name for name in attributes if name not in self._constant])
        # with less than two names `itemgetter` returns no tuple
        self._read = itemgetter(*self._names) if len(self._names) > 1 else self._read_few

    def _read_few(self, attributes: dict[str, Any]) -> tuple[Any, ...]:
        return tuple([attributes[name] for name in self._names])

    def get(self) -> AttributesState:
        """
        Save the attributes.

        :return: plain data
        :raises ValueError: naming the first attribute that is not plain data
        """
        attributes = self._attributes
        if len(attributes) != self._n_attributes:
            self._find_names()
        try:
            values: Sequence[Any] = self._read(attributes)
        except KeyError:  # one went, another came
            self._find_names()
            values = self._read(attributes)
        mutable = self._to_freeze.among(values)
        if mutable:
            values = list(values)
            for i, freeze_kind in mutable:
                try:
                    values[i] = freeze_kind(values[i]) if freeze_kind else self._freeze(values[i])
                except NotPlainError:
                    raise ValueError(self._refusal(self._names[i])) from None
        return AttributesState(self._names, values)

    def set(self, saved: AttributesState) -> None:
        """
        Restore the attributes; those that have come since go.

        :param saved: what :meth:`get` returned
        """
        names, values = saved
        attributes = self._attributes
        mutable = self._to_thaw.among(values)
        if mutable:
            values = list(values)
            for i, thaw_kind in mutable:
                values[i] = thaw_kind(values[i]) if thaw_kind else self._thaw(attributes.get(names[i]), values[i])
        attributes.update(zip(names, values))  # noqa: B905 (`strict` takes longer than the rest)
        if names is not self._names or len(attributes) != self._n_attributes:
            for name in attributes.keys() - set(names) - self._constant:
                del attributes[name]

    def _freeze(self, value: Any) -> Any:
        if self._stays(value):
            return Stays()
        generator = getattr(value, "__self__", None)
        return freeze(generator if isinstance(value, _METHODS) and is_generator(generator) else value)

    def _refusal(self, name: str) -> str:
        kind = type(self._attributes[name]).__qualname__
        why = f"its attribute `{name}` ({kind}) is, or holds, more than numbers, strings, arrays, random generators and "
        return cannot_be_saved(self._layer, f"{why}lists, tuples and dicts of these")

    def _stays(self, value: Any) -> bool:
        """Whether it is left as it is: another layer, or a function, of which only the replay check can tell more."""
        if isinstance(value, _CONSTANT) or id(value) in self._layers:
            return True
        if not isinstance(value, _METHODS):
            return False
        owner = getattr(value, "__self__", None)
        return owner is None or isinstance(owner, (ModuleType, type)) or id(owner) in self._layers

    @staticmethod
    def _thaw(current: Any, saved: Any) -> Any:
        kind = type(saved)
        if kind is Stays:
            return current
        if kind is not GeneratorState:  # an immutable value of a rare type
            return thaw(saved)
        if isinstance(current, _METHODS):  # the method of a generator
            set_generator(getattr(current, "__self__", None), saved)
            return current
        return set_generator(current, saved)


class _Mutable:
    """
    Finds those of many values that can change in place. It remembers the types of the last ones.

    :param quick: functions that copy values of some types, of which nothing else needs to be known
    """

    def __init__(self, quick: dict[type, Callable[[Any], Any]]) -> None:
        self._quick = quick
        self._types: tuple[type, ...] = ()
        self._found: list[tuple[int, Callable[[Any], Any] | None]] = []

    def among(self, values: Sequence[Any]) -> list[tuple[int, Callable[[Any], Any] | None]]:
        """
        Find the values that can change in place.

        :param values: the values
        :return: their places, and what copies them; None: it takes more than that
        """
        types = tuple(map(type, values))
        if types != self._types:
            self._types = types
            self._found = [(i, self._quick.get(kind)) for i, kind in enumerate(types) if kind not in IMMUTABLE]
        return self._found

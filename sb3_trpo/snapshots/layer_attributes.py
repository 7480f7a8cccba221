"""Save the attributes of a layer by value: plain data is copied, constants stay, everything else is refused."""

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

from sb3_trpo.snapshots.plain_data import (
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
"""Types of attributes that are left as they are. The generators of spaces are saved separately."""
_METHODS = (MethodType, BuiltinFunctionType, type(np.random.default_rng(0).random), type(np.random.RandomState(0).random))


def cannot_be_saved(layer: object, why: str = "") -> str:
    """
    Write the message that the state of a layer cannot be saved, with the remedy.

    :param layer: an environment or a wrapper
    :param why: the reason, as a clause
    :return: the message
    """
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    reason = f": {why}" if why else ""
    return (
        f"the state of {name} cannot be saved and restored{reason}; give it methods get_state() and set_state(state), "
        "or call sb3_trpo.register_simulator with its class and two such functions"
    )


_THAW_ALONE = {kind: function for kind, function in THAW.items() if kind is not GeneratorState}
"""Functions that thaw a value without the present one. Generators are left out, because they are restored in place."""


class OneNumber:
    """
    Saves the only attribute that the class of a layer changes, if it is a number or a boolean.

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

        :param value: a result of :meth:`get`
        """
        self._attributes[self._name] = value


class NamedAttributes:
    """
    Saves the attributes that the class of a layer changes.

    :param layer: the environment or wrapper
    :param names: names of the attributes, which hold plain data
    """

    def __init__(self, layer: Any, names: tuple[str, ...]) -> None:
        self._attributes = vars(layer)
        self._names = names

    def get(self) -> dict[str, Any]:
        """
        Save the attributes.

        :return: plain data by name; missing attributes are left out
        """
        attributes = self._attributes
        return {name: freeze(attributes[name]) for name in self._names if name in attributes}

    def set(self, saved: dict[str, Any]) -> None:
        """
        Restore the attributes.

        :param saved: a result of :meth:`get`
        """
        for name in self._names:
            if name in saved:
                self._attributes[name] = thaw(saved[name])
            else:
                self._attributes.pop(name, None)


class Stays(NamedTuple):
    """Stands for an attribute that is left as it is."""


class AttributesState(NamedTuple):
    """
    Holds the attributes of one layer.

    :param names: names of the attributes
    :param values: plain data, :class:`Stays`, or the states of random generators
    """

    names: tuple[str, ...]
    values: Sequence[Any]


class LayerAttributes:
    """
    Saves all attributes of a layer that may change.

    Most attributes are numbers, and their types rarely change. While the types stay the same, only the attributes that can
    change in place are processed one by one.

    :param layer: the environment or wrapper
    :param constant: names of attributes that are not part of the state or are saved elsewhere
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
        # with fewer than two names `itemgetter` returns no tuple
        self._read = itemgetter(*self._names) if len(self._names) > 1 else self._read_few

    def _read_few(self, attributes: dict[str, Any]) -> tuple[Any, ...]:
        return tuple([attributes[name] for name in self._names])

    def get(self) -> AttributesState:
        """
        Save the attributes.

        :return: plain data
        :raises ValueError: if an attribute is not plain data; the message names it
        """
        attributes = self._attributes
        if len(attributes) != self._n_attributes:
            self._find_names()
        try:
            values: Sequence[Any] = self._read(attributes)
        except KeyError:  # one attribute was replaced by another
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
        Restore the attributes and delete those that are new since they were saved.

        :param saved: a result of :meth:`get`
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
        why = f"its attribute `{name}` ({kind}) is not plain data: numbers, strings, arrays, random generators and "
        return cannot_be_saved(self._layer, f"{why}lists, tuples and dicts of these")

    def _stays(self, value: Any) -> bool:
        """Tell whether a value is left as it is: a layer, a constant or a function. Only the replay check covers functions."""
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
        if kind is not GeneratorState:  # an immutable value of an uncommon type
            return thaw(saved)
        if isinstance(current, _METHODS):  # the method of a generator
            set_generator(getattr(current, "__self__", None), saved)
            return current
        return set_generator(current, saved)


class _Mutable:
    """
    Finds the values that can change in place, and remembers the types of the last values.

    :param quick: functions that copy values of some types without any other information
    """

    def __init__(self, quick: dict[type, Callable[[Any], Any]]) -> None:
        self._quick = quick
        self._types: tuple[type, ...] = ()
        self._found: list[tuple[int, Callable[[Any], Any] | None]] = []

    def among(self, values: Sequence[Any]) -> list[tuple[int, Callable[[Any], Any] | None]]:
        """
        Find the values that can change in place.

        :param values: the values
        :return: for each, its position and the function that copies it; None: copying it needs more information
        """
        types = tuple(map(type, values))
        if types != self._types:
            self._types = types
            self._found = [(i, self._quick.get(kind)) for i, kind in enumerate(types) if kind not in IMMUTABLE]
        return self._found

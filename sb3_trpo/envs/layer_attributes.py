"""The attributes of one layer of an environment, saved by value: plain data is copied, constants stay, all else is refused."""

import logging
import pathlib
import re
from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_trpo.envs.plain_data import IMMUTABLE, GeneratorState, NotPlainError, freeze, is_generator, set_generator, thaw

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


class LayerAttributes:
    """
    All attributes of a layer that may change.

    :param layer: the environment or wrapper
    :param constant: names of attributes that are no state, or that are saved elsewhere
    :param layers: the other layers; attributes that hold one of them are constant
    """

    def __init__(self, layer: Any, constant: Collection[str], layers: Collection[Any] = ()) -> None:
        self._layer = layer
        self._constant = frozenset(constant)
        self._layers = {id(other) for other in (layer, *layers)}

    def get(self) -> dict[str, Any]:
        """
        Save the attributes.

        :return: plain data by name
        :raises ValueError: naming the first attribute that is not plain data
        """
        saved = {}
        for name, value in vars(self._layer).items():
            if name in self._constant:
                continue
            if type(value) in IMMUTABLE:
                saved[name] = value
            elif not self._stays(value):
                saved[name] = self._freeze(name, value)
        return saved

    def set(self, saved: dict[str, Any]) -> None:
        """
        Restore the attributes; those that have come since go.

        :param saved: what :meth:`get` returned
        """
        attributes = vars(self._layer)
        for name, value in saved.items():
            if type(value) in IMMUTABLE:
                attributes[name] = value
            elif type(value) is GeneratorState:
                self._set_generator(name, value)
            else:
                attributes[name] = thaw(value)
        if len(attributes) > len(saved):
            for name in attributes.keys() - saved.keys() - self._constant:
                if not self._stays(attributes[name]):
                    del attributes[name]

    def _stays(self, value: Any) -> bool:
        """Whether it is left as it is: another layer, or a function, of which only the replay check can tell more."""
        if isinstance(value, _CONSTANT) or id(value) in self._layers:
            return True
        if not isinstance(value, _METHODS):
            return False
        owner = getattr(value, "__self__", None)
        return owner is None or isinstance(owner, (ModuleType, type)) or id(owner) in self._layers

    def _freeze(self, name: str, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        try:
            return freeze(owner if isinstance(value, _METHODS) and is_generator(owner) else value)
        except NotPlainError:
            kind = type(value).__qualname__
            why = f"its attribute `{name}` ({kind}) is, or holds, more than numbers, strings, arrays, random generators and "
            raise ValueError(cannot_be_saved(self._layer, f"{why}lists, tuples and dicts of these")) from None

    def _set_generator(self, name: str, saved: GeneratorState) -> None:
        current = vars(self._layer).get(name)
        if isinstance(current, _METHODS):  # the method of a generator
            set_generator(current.__self__, saved)  # type: ignore[union-attr]
        else:
            vars(self._layer)[name] = set_generator(current, saved)

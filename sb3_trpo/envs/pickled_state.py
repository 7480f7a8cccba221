"""A ready pair of functions for environments in pure Python: a copy of everything that their attributes lead to."""

import io
import pickle
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym

_LEFT_OUT = ("env", "spec", "screen", "clock", "window", "surf", "viewer", "renderer", "mujoco_renderer")
"""The environment inside a wrapper, which has a state of its own, and what only shows the state."""


def _get_state(layer: Any) -> bytes:
    attributes = {name: value for name, value in vars(layer).items() if name not in _LEFT_OUT}
    file = io.BytesIO()
    _Pickler(file, _chain(layer)).dump(attributes)
    return file.getvalue()


def _set_state(layer: Any, state: bytes) -> None:
    saved = _Unpickler(io.BytesIO(state), _chain(layer)).load()
    attributes = vars(layer)
    for name in attributes.keys() - saved.keys() - set(_LEFT_OUT):
        del attributes[name]
    attributes.update(saved)


deepcopy_state = (_get_state, _set_state)
"""
``get_state`` and ``set_state`` for :func:`~sb3_trpo.register_simulator`: all that the attributes of an environment in pure
Python lead to is copied, functions with their closures included. Class attributes and what C libraries keep are not.
"""


def _chain(layer: Any) -> list[Any]:
    """The layer and what it wraps: references to these stay references."""
    chain = [layer]
    while isinstance(chain[-1], gym.Wrapper):
        chain.append(chain[-1].env)
    return chain


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, chain: list[Any]) -> None:
        super().__init__(file)
        self._places = {id(layer): place for place, layer in enumerate(chain)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._places.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, chain: list[Any]) -> None:
        super().__init__(file)
        self._chain = chain

    def persistent_load(self, place: int) -> Any:
        return self._chain[place]

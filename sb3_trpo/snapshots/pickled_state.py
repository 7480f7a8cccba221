"""Save and restore environments in pure Python by pickling everything that their attributes refer to."""

import io
import pickle
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym

_LEFT_OUT = ("env", "spec", "screen", "clock", "window", "surf", "viewer", "renderer", "mujoco_renderer")
"""Attributes that are not copied: the environment inside a wrapper, which is saved separately, and objects for rendering."""


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
``get_state`` and ``set_state`` for :func:`~sb3_trpo.register_simulator`. They copy everything that the attributes of an
environment in pure Python refer to, including functions and their closures. They do not copy class attributes or the state of
C libraries.
"""


def _chain(layer: Any) -> list[Any]:
    """List a layer and the layers inside it: references to these are not copied."""
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

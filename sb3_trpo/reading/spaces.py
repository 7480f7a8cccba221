"""Rebuilds Gymnasium's spaces from recipes, Gym's too: only the attributes that a space has, with values of their types."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trpo.reading.arrays import Build
from sb3_trpo.reading.pickles import Call, NotRebuiltError

_COMMON: dict[str, Any] = {
    "shape": tuple | None,
    "_shape": tuple | None,
    "dtype": np.dtype | type | None,
    "np_random": np.random.Generator | None,
    "_np_random": np.random.Generator | None,
}
_SPACES: dict[str, tuple[type[spaces.Space[Any]], dict[str, Any]]] = {
    "box.Box": (
        spaces.Box,
        {
            **dict.fromkeys(("low", "high", "bounded_below", "bounded_above"), np.ndarray),
            **dict.fromkeys(("low_repr", "high_repr"), str | None),
        },
    ),
    "discrete.Discrete": (spaces.Discrete, {"n": int | np.integer, "start": int | np.integer}),
    "multi_discrete.MultiDiscrete": (spaces.MultiDiscrete, {"nvec": np.ndarray, "start": np.ndarray}),
    "multi_binary.MultiBinary": (spaces.MultiBinary, {"n": int | np.integer | tuple | list | np.ndarray}),
    "dict.Dict": (spaces.Dict, {"spaces": dict, "sort_keys": bool}),
    "tuple.Tuple": (spaces.Tuple, {"spaces": tuple | list}),
}
_NEEDED = {
    spaces.Box: ("low", "high", "_shape", "dtype"),
    spaces.Discrete: ("n",),
    spaces.MultiDiscrete: ("nvec", "_shape", "dtype"),
    spaces.MultiBinary: ("n",),
    spaces.Dict: ("spaces",),
    spaces.Tuple: ("spaces",),
}


def _maker(kind: type[spaces.Space[Any]], types: Mapping[str, Any]) -> Callable[[Call, Build], Any]:
    """Make the function that rebuilds the spaces of one class."""
    allowed = {**_COMMON, **types}

    def make(call: Call, build: Build) -> Any:
        if call.args or call.kwargs or not isinstance(call.state, dict):
            raise NotRebuiltError(f"a {kind.__name__} is made in an unusual way")
        state = {}
        for name, recipe in call.state.items():
            if name not in allowed:
                raise NotRebuiltError(f"a {kind.__name__} has the attribute {name!r}, which such spaces do not have")
            state[name] = build(recipe)
            if not isinstance(state[name], allowed[name]):
                raise NotRebuiltError(f"the attribute {name!r} of a {kind.__name__} is a {type(state[name]).__name__}")
        _check(kind, state)
        space = kind.__new__(kind)
        spaces.Space.__init__(space)
        try:
            space.__setstate__(state)
        except Exception as error:
            raise NotRebuiltError(f"a {kind.__name__} cannot be rebuilt ({type(error).__name__}: {error})") from error
        return space

    return make


def _check(kind: type[spaces.Space[Any]], state: dict[str, Any]) -> None:
    """Check that the attributes of a space fit each other."""
    if "shape" in state:
        state["_shape"] = state.pop("shape")
    if state.get("dtype") is not None:
        state["dtype"] = np.dtype(state["dtype"])
        if state["dtype"].hasobject:
            raise NotRebuiltError(f"a {kind.__name__} is of objects, not of numbers")
    missing = [name for name in _NEEDED[kind] if name not in state]
    if missing:
        raise NotRebuiltError(f"a {kind.__name__} has no attribute {missing[0]!r}")
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray) and name != "n"}
    wrong = [name for name, value in arrays.items() if value.shape != state["_shape"]]
    if wrong:
        raise NotRebuiltError(f"the attribute {wrong[0]!r} of a {kind.__name__} has another shape than the space")
    if kind in (spaces.Dict, spaces.Tuple):
        inner = state["spaces"].values() if kind is spaces.Dict else state["spaces"]
        if not all(isinstance(space, spaces.Space) for space in inner):
            raise NotRebuiltError(f"a {kind.__name__} has parts that are no spaces")


MAKERS = {f"gymnasium.spaces.{path}": _maker(kind, types) for path, (kind, types) in _SPACES.items()}
"""Functions that rebuild a space, by the name of its class."""

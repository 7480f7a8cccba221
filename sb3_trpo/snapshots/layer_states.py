"""Save and restore the states of the layers of environments: of each wrapper, and of the simulator inside."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from sb3_trpo.checks import described
from sb3_trpo.snapshots.known_layers import KnownLayer
from sb3_trpo.snapshots.layer_attributes import LayerAttributes, NamedAttributes, OneNumber, cannot_be_saved
from sb3_trpo.snapshots.random_generators import EnvGenerator, SpaceGenerators

GetState = Callable[[Any], Any]
SetState = Callable[[Any, Any], None]

_REGISTRY: dict[type, tuple[GetState, SetState]] = {}


def register_simulator(env_class: type[gym.Env[Any, Any]], get_state: GetState, set_state: SetState) -> None:
    """
    Register how vine sampling saves and restores an environment or a wrapper, and its subclasses.

    The environment's ``np_random`` and the generators of its spaces are saved separately.

    :param env_class: class of the environment or wrapper; the functions handle this layer only, not the layers inside it
    :param get_state: function from a layer to its state, which holds everything that the next steps depend on; later changes
        of the layer must not change the state
    :param set_state: function of a layer and a state that restores the state; it may be called any number of times with the
        same state and must not change it
    :raises TypeError: if ``env_class`` is no class of environments or wrappers, or a function cannot be called
    """
    if not (isinstance(env_class, type) and issubclass(env_class, (gym.Env, VecEnv))):
        raise TypeError(f"`env_class` must be a class of environments or wrappers, not {described(env_class)}")
    for name, function in (("get_state", get_state), ("set_state", set_state)):
        if not callable(function):
            raise TypeError(f"`{name}` must be a function, not {described(function)}")
    _REGISTRY[env_class] = (get_state, set_state)


def _name(layer: Any) -> str:
    """Name the class of a layer. RL Zoo's replacement of gymnasium's ``TimeLimit`` has the name of the original."""
    cls = next(cls for cls in type(layer).__mro__ if not cls.__module__.startswith("rl_zoo3."))
    return f"{cls.__module__}.{cls.__qualname__}"


class _Part(NamedTuple):
    """Holds the functions that save and restore one part of a layer's state."""

    get: Callable[[], Any]
    set: Callable[[Any], None]


def chain_of(env: VecEnv | gym.Env[Any, Any]) -> Iterator[Any]:
    """
    Find all layers.

    :param env: vectorised environments, or a single one
    :return: the layers, from outside to inside, environment by environment
    """
    vec_env: Any = env
    while isinstance(vec_env, VecEnvWrapper):
        yield vec_env
        vec_env = vec_env.venv
    if isinstance(vec_env, VecEnv):
        yield vec_env
    for layer in getattr(vec_env, "envs", []) if isinstance(vec_env, VecEnv) else [vec_env]:
        while layer is not None:
            yield layer
            layer = layer.env if isinstance(layer, gym.Wrapper) else None


def _parts(layer: Any, layers: list[Any], known: dict[type, KnownLayer]) -> list[_Part]:
    """
    Find the functions that save and restore a layer. Methods and registered functions take precedence over known layers.

    :param layer: an environment or a wrapper
    :param layers: all layers
    :param known: the known layers
    :return: the parts of its state, in the order in which they are saved and restored
    :raises ValueError: if its state cannot be saved and restored
    """
    if isinstance(layer, VecEnv) and not isinstance(layer, (VecEnvWrapper, DummyVecEnv)):
        raise ValueError(f"`env` must keep its environments in a DummyVecEnv, not in a {type(layer).__name__}")
    for cls in type(layer).__mro__:
        if {"get_state", "set_state"} <= vars(cls).keys():  # both, because MujocoEnv has an unrelated set_state
            return [_Part(layer.get_state, layer.set_state), *_np_random(layer)]
        if cls in _REGISTRY:
            return [_Part(*(partial(function, layer) for function in _REGISTRY[cls])), *_np_random(layer)]
        if cls in known:
            return _known_parts(layer, cls, layers, known)
    raise ValueError(cannot_be_saved(layer))


def _np_random(layer: Any) -> list[_Part]:
    """Save and restore the generator after the state itself, so that its state is final."""
    if not isinstance(layer, gym.Env) or isinstance(layer, gym.Wrapper):
        return []
    generator = EnvGenerator(layer)
    return [_Part(generator.get, generator.set)]


def _are_stock(layers: list[Any], known: dict[type, KnownLayer]) -> bool:
    """Tell whether no layer is custom. Custom classes and functions may change attributes that known classes do not change."""
    return all(type(layer) in known and not known[type(layer)].calls_functions for layer in layers)


def _known_parts(layer: Any, cls: type, layers: list[Any], table: dict[type, KnownLayer]) -> list[_Part]:
    known, itself = table[cls], type(layer) in table
    if known.only is not None and _are_stock(layers, table):
        only = known.only
        named = OneNumber(layer, only) if isinstance(only, str) else NamedAttributes(layer, only)
        return [_Part(named.get, named.set), *_np_random(layer)]
    attributes = LayerAttributes(layer, known.constant, layers)
    nothing = not attributes.get().names  # refuses what is not plain data
    # a known class that is not subclassed gets no attributes later
    parts = [] if nothing and itself else [_Part(attributes.get, attributes.set)]
    if known.inside is not None:
        try:
            inside = known.inside(layer)
        except ValueError as error:
            raise ValueError(cannot_be_saved(layer, str(error))) from None
        parts.append(_Part(inside.get, inside.set))
    return parts + _np_random(layer)


_NO_STATE = object()


class LayerStates:
    """
    Saves and restores the states of layers, and the random generators of their spaces.

    :param layers: the layers, from outside to inside
    :param known: the layers whose state is known
    :raises ValueError: if the state of a layer cannot be saved and restored
    """

    def __init__(self, layers: Sequence[Any], known: dict[type, KnownLayer]) -> None:
        self.layers = list(layers)
        self.names = tuple(map(_name, self.layers))
        parts = [part for layer in self.layers for part in _parts(layer, self.layers, known)]
        self.getters = [part.get for part in parts]
        self._setters = [part.set for part in parts]
        self.spaces = SpaceGenerators([] if _are_stock(self.layers, known) else self.layers)

    def set(self, states: Sequence[Any], not_saved: object = _NO_STATE) -> None:
        """
        Restore states.

        :param states: results of the :attr:`getters`
        :param not_saved: a state that is left as it is
        """
        for set_state, state in zip(self._setters, states, strict=True):
            if state is not not_saved:
                set_state(state)

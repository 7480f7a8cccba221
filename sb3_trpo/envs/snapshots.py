"""
Simulators whose state can be saved and restored exactly: MuJoCo, the Arcade Learning Environment, classic control.

An environment is a chain of wrappers around a simulator, inside SB3's ``DummyVecEnv`` and perhaps SB3's own wrappers around
that. A snapshot has one part for every layer of that chain, and is plain data: it can be pickled, and restored into the same
environments made anew in another process. Custom environments are supported through :func:`register_simulator`, or with
methods ``get_state()`` and ``set_state(state)``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from sb3_trpo.envs.layer_attributes import LayerAttributes, NamedAttributes, OneNumber, cannot_be_saved
from sb3_trpo.envs.monitors import without_monitors
from sb3_trpo.envs.random_generators import EnvGenerator, SpaceGenerators, drew_globally, global_state, set_global_state
from sb3_trpo.envs.simulator_states import KnownLayer, known_layers

GetState = Callable[[Any], Any]
SetState = Callable[[Any, Any], None]

_REGISTRY: dict[type, tuple[GetState, SetState]] = {}
_NOT_SAVED = "not saved: it has not been reset yet"


def register_simulator(env_class: type[gym.Env[Any, Any]], get_state: GetState, set_state: SetState) -> None:
    """
    Make an environment, or a wrapper, one that vine sampling can branch from. Subclasses are included.

    The environment's ``np_random`` and the generators of its spaces are saved beside it; the two functions need not care.

    :param env_class: class of the environment or of the wrapper; only its own layer, not what it wraps
    :param get_state: layer -> all that its next steps depend on; later changes of the layer must not reach it
    :param set_state: layer, state -> nothing; the state may be set any number of times, so it must not be changed either
    """
    _REGISTRY[env_class] = (get_state, set_state)


class Snapshot(NamedTuple):
    """
    The state of the training environments, in plain data.

    :param layers: class of each layer, from outside to inside, environment by environment
    :param states: state of each layer, part by part
    :param spaces: states of the spaces' random generators; None: nobody draws from them
    :param generators: states of the global random generators; None: nobody draws from them
    """

    layers: tuple[str, ...]
    states: list[Any]
    spaces: list[Any] | None
    generators: dict[str, Any] | None


def _name(layer: Any) -> str:
    """The class, by which a snapshot tells whose it is. RL Zoo replaces gymnasium's ``TimeLimit``: it counts as the same."""
    cls = next(cls for cls in type(layer).__mro__ if not cls.__module__.startswith("rl_zoo3."))
    return f"{cls.__module__}.{cls.__qualname__}"


class _Part(NamedTuple):
    """How one part of a layer's state is saved and restored."""

    get: Callable[[], Any]
    set: Callable[[Any], None]


def _layers(env: VecEnv) -> Iterator[Any]:
    """All layers whose state matters, from outside to inside. Monitors do not: branches go past them."""
    vec_env: Any = env
    while isinstance(vec_env, VecEnvWrapper):
        if type(vec_env) is not VecMonitor:
            yield vec_env
        vec_env = vec_env.venv
    yield vec_env
    for layer in getattr(vec_env, "envs", []):
        while layer is not None:
            if type(layer) is not Monitor:
                yield layer
            layer = layer.env if isinstance(layer, gym.Wrapper) else None


def _parts(layer: Any, layers: list[Any]) -> list[_Part]:
    """
    Find out how a layer is saved and restored: its class's own methods or functions come before what is known.

    :param layer: an environment or a wrapper
    :param layers: all layers
    :return: the parts of its state, in the order in which they are saved and restored
    :raises ValueError: if its state is out of reach
    """
    if isinstance(layer, VecEnv) and not isinstance(layer, (VecEnvWrapper, DummyVecEnv)):
        raise ValueError(f"{type(layer).__name__} keeps its environments out of reach; put them into a DummyVecEnv")
    known = known_layers()
    for cls in type(layer).__mro__:
        if {"get_state", "set_state"} <= vars(cls).keys():  # together: MujocoEnv has a set_state of another meaning
            return [_Part(layer.get_state, layer.set_state), *_np_random(layer)]
        if cls in _REGISTRY:
            return [_Part(*(partial(function, layer) for function in _REGISTRY[cls])), *_np_random(layer)]
        if cls in known:
            return _known_parts(layer, known[cls], layers)
    raise ValueError(cannot_be_saved(layer))


def _np_random(layer: Any) -> list[_Part]:
    """After the state itself, so that it has the last word."""
    if not isinstance(layer, gym.Env) or isinstance(layer, gym.Wrapper):
        return []
    generator = EnvGenerator(layer)
    return [_Part(generator.get, generator.set)]


def _are_stock(layers: list[Any]) -> bool:
    """Whether nothing is custom: subclasses, other classes and functions may change what known classes leave alone."""
    known = known_layers()
    return all(type(layer) in known and not known[type(layer)].calls_functions for layer in layers)


def _known_parts(layer: Any, known: KnownLayer, layers: list[Any]) -> list[_Part]:
    itself = type(layer) in known_layers()
    if known.only is not None and _are_stock(layers):
        only = known.only
        named = OneNumber(layer, only) if isinstance(only, str) else NamedAttributes(layer, only)
        return [_Part(named.get, named.set), *_np_random(layer)]
    attributes = LayerAttributes(layer, known.constant, layers)
    nothing = not attributes.get().names  # refuses what is not plain data
    # a class of the library itself will get no attributes later
    parts = [] if nothing and itself else [_Part(attributes.get, attributes.set)]
    if known.inside is not None:
        try:
            inside = known.inside(layer)
        except ValueError as error:
            raise ValueError(cannot_be_saved(layer, str(error))) from None
        parts.append(_Part(inside.get, inside.set))
    return parts + _np_random(layer)


class Simulator:
    """
    The training environments as a simulator that can go back.

    :param env: the training environments
    :param draws_globally: whether a snapshot has the states of the global random generators of Python, NumPy and torch, which
        take longer to save than a step of CartPole. If not, an excursion puts them back all the same, and finds out if it
        should be so
    :raises ValueError: if the state of a layer cannot be saved and restored
    """

    def __init__(self, env: VecEnv, draws_globally: bool = True) -> None:
        self.env = env
        self.draws_globally = draws_globally
        self._layers = list(_layers(env))
        self._names = tuple(map(_name, self._layers))
        try:
            parts = [part for layer in self._layers for part in _parts(layer, self._layers)]
        except ValueError as error:
            raise ValueError(f"vine sampling needs an environment that can be restored: {error}") from None
        self._getters = [part.get for part in parts]
        self._setters = [part.set for part in parts]
        self._spaces = SpaceGenerators([] if _are_stock(self._layers) else self._layers)

    def is_of(self, env: VecEnv) -> bool:
        """
        Tell whether this is the simulator of some environments.

        :param env: training environments
        :return: whether they are the same, and have the same wrappers as when it was made
        """
        layers = list(_layers(env))
        return len(layers) == len(self._layers) and all(map(lambda a, b: a is b, layers, self._layers))

    def save(self) -> Snapshot:
        """
        Save the state of all environments and of all random generators that they may draw from.

        :return: the state
        """
        generators = global_state() if self.draws_globally else None
        return Snapshot(self._names, [get() for get in self._getters], self._spaces.get(), generators)

    def restore(self, snapshot: Snapshot, seed: int | None = None) -> None:
        """
        Restore a state.

        :param snapshot: what :meth:`save` returned, here or for the same environments elsewhere; it may be restored any
            number of times
        :param seed: of other random numbers than those of the snapshot, where an environment draws from its ``np_random``
        :raises ValueError: if it is a state of other environments
        """
        if snapshot.layers != self._names:
            raise ValueError(f"this snapshot is one of other environments: {snapshot.layers}, not {self._names}")
        for set_state, state in zip(self._setters, snapshot.states, strict=True):
            if state is not _NOT_SAVED:
                set_state(state)
        self._spaces.set(snapshot.spaces)
        if snapshot.generators is not None:
            set_global_state(snapshot.generators)
        if seed is not None:
            self._seed(seed)

    def _seed(self, seed: int) -> None:
        envs = [layer for layer in self._layers if isinstance(layer, gym.Env) and layer.unwrapped is layer]
        for env, seeds in zip(envs, np.random.SeedSequence(seed).spawn(len(envs)), strict=True):
            generator = env.np_random.bit_generator  # others may hold the same
            generator.state = type(generator)(seeds).state

    @contextmanager
    def excursion(self, perhaps_not_reset: bool = False) -> Iterator[VecEnv]:
        """
        Leave the present state, and come back to it at the end, whatever happens.

        Meanwhile monitors see no step, and the statistics of ``VecNormalize`` stand still.

        :param perhaps_not_reset: whether the environments may not have been reset yet; a custom ``get_state`` may fail then,
            and the next thing that happens to its environment is a reset
        :return: the environments to step
        """
        spaces, generators = self._spaces.get(), global_state()
        states = [_try(get) if perhaps_not_reset else get() for get in self._getters]
        here = Snapshot(self._names, states, spaces, generators)
        learning = [layer for layer in self._layers if isinstance(layer, VecNormalize) and layer.training]
        with without_monitors(self.env) as env, _outputs_kept(self.env):
            try:
                for normalizer in learning:
                    normalizer.training = False
                yield env
            finally:
                self.draws_globally = self.draws_globally or drew_globally(generators)
                self.restore(here)
                for normalizer in learning:
                    normalizer.training = True


def _try(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception:  # whatever a custom function raises
        return _NOT_SAVED


@contextmanager
def _outputs_kept(env: VecEnv) -> Iterator[None]:
    """Put back at the end what the last step or reset has given out, which is no state, but can be looked at."""
    vec_env: Any = env.unwrapped
    outputs = {name: list(getattr(vec_env, name)) for name in ("buf_infos", "reset_infos")}
    arrays = {name: getattr(vec_env, name).copy() for name in ("buf_rews", "buf_dones")}
    observations = {key: rows.copy() for key, rows in vec_env.buf_obs.items()}
    try:
        yield
    finally:
        for name, value in (*outputs.items(), *arrays.items()):
            setattr(vec_env, name, value)
        for key, rows in observations.items():
            vec_env.buf_obs[key][...] = rows

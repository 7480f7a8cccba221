"""
Save and restore the exact state of simulators: MuJoCo, the Arcade Learning Environment and classic control.

An environment is a chain of wrappers around a simulator, inside SB3's ``DummyVecEnv`` and possibly SB3's wrappers around it.
A snapshot has the state of every layer of this chain. It is plain data: it can be pickled, and it can be restored into new
copies of the same environments in another process. A custom environment is supported if it is registered with
:func:`register_simulator` or has methods ``get_state()`` and ``set_state(state)``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from sb3_trpo.checks import described
from sb3_trpo.snapshots.known_layers import KnownLayer, known_layers
from sb3_trpo.snapshots.layer_attributes import LayerAttributes, NamedAttributes, OneNumber, cannot_be_saved
from sb3_trpo.snapshots.monitors import without_monitors
from sb3_trpo.snapshots.random_generators import EnvGenerator, SpaceGenerators, drew_globally, global_state, set_global_state

GetState = Callable[[Any], Any]
SetState = Callable[[Any, Any], None]

_REGISTRY: dict[type, tuple[GetState, SetState]] = {}
_NOT_SAVED = "not saved: it has not been reset yet"


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


class Snapshot(NamedTuple):
    """
    Holds the state of the training environments as plain data; the statistics of ``VecNormalize`` are left out.

    :param layers: class of each layer, from outside to inside, environment by environment
    :param states: states of all parts of all layers
    :param spaces: states of the spaces' random generators; None: nothing draws from them
    :param generators: states of the global random generators; None: nothing draws from them
    """

    layers: tuple[str, ...]
    states: list[Any]
    spaces: list[Any] | None
    generators: dict[str, Any] | None


def _name(layer: Any) -> str:
    """Name the class of a layer. RL Zoo's replacement of gymnasium's ``TimeLimit`` has the name of the original."""
    cls = next(cls for cls in type(layer).__mro__ if not cls.__module__.startswith("rl_zoo3."))
    return f"{cls.__module__}.{cls.__qualname__}"


class _Part(NamedTuple):
    """Holds the functions that save and restore one part of a layer's state."""

    get: Callable[[], Any]
    set: Callable[[Any], None]


def _layers(env: VecEnv) -> Iterator[Any]:
    """Find all layers whose state matters, from outside to inside. Monitors are left out, because branches bypass them."""
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
    Find the functions that save and restore a layer. Methods and registered functions take precedence over known layers.

    :param layer: an environment or a wrapper
    :param layers: all layers
    :return: the parts of its state, in the order in which they are saved and restored
    :raises ValueError: if its state cannot be saved and restored
    """
    if isinstance(layer, VecEnv) and not isinstance(layer, (VecEnvWrapper, DummyVecEnv)):
        raise ValueError(f"`env` must keep its environments in a DummyVecEnv, not in a {type(layer).__name__}")
    known = known_layers()
    for cls in type(layer).__mro__:
        if {"get_state", "set_state"} <= vars(cls).keys():  # both, because MujocoEnv has an unrelated set_state
            return [_Part(layer.get_state, layer.set_state), *_np_random(layer)]
        if cls in _REGISTRY:
            return [_Part(*(partial(function, layer) for function in _REGISTRY[cls])), *_np_random(layer)]
        if cls in known:
            return _known_parts(layer, known[cls], layers)
    raise ValueError(cannot_be_saved(layer))


def _np_random(layer: Any) -> list[_Part]:
    """Save and restore the generator after the state itself, so that its state is final."""
    if not isinstance(layer, gym.Env) or isinstance(layer, gym.Wrapper):
        return []
    generator = EnvGenerator(layer)
    return [_Part(generator.get, generator.set)]


def _are_stock(layers: list[Any]) -> bool:
    """Tell whether no layer is custom. Custom classes and functions may change attributes that known classes do not change."""
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
    # a known class that is not subclassed gets no attributes later
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
    Saves and restores the state of the training environments.

    :param env: the training environments
    :param draws_globally: whether snapshots include the global random generators of Python, NumPy and torch; saving these
        takes longer than a step of CartPole. An excursion restores them in any case, and sets this to True if they were used
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
        Tell whether the simulator was made for these environments.

        :param env: training environments
        :return: whether they are the same objects and have the same wrappers as when the simulator was made
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

        :param snapshot: a result of :meth:`save`, of these environments or of copies in another process; it may be restored
            any number of times
        :param seed: seed for each environment's ``np_random``; None: restore the generators of the snapshot
        :raises ValueError: if the snapshot is of other environments
        """
        if snapshot.layers != self._names:
            raise ValueError(f"`snapshot` must have the layers of these environments, {self._names}, not {snapshot.layers}")
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
            generator = env.np_random.bit_generator  # set in place, because other objects may hold the same generator
            generator.state = type(generator)(seeds).state

    @contextmanager
    def excursion(self, perhaps_not_reset: bool = False) -> Iterator[VecEnv]:
        """
        Return to the present state at the end of the context, also after an exception.

        Inside the context, monitors see no steps, and the statistics of ``VecNormalize`` do not change.

        :param perhaps_not_reset: whether the environments may not have been reset yet. A custom ``get_state`` may then fail;
            its environment is not restored, because a reset comes next
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
    except Exception:  # a custom function may raise anything
        return _NOT_SAVED


@contextmanager
def _outputs_kept(env: VecEnv) -> Iterator[None]:
    """Put the results of the last step or reset back at the end: they are no state, but callers can read them."""
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

"""
Simulators whose state can be saved and restored exactly: MuJoCo, the Arcade Learning Environment, classic control.

An environment is a chain of wrappers around a simulator, inside SB3's ``DummyVecEnv`` and perhaps SB3's own wrappers around
that. A snapshot has one part for every layer of that chain. An environment of one's own takes part through
:func:`register_simulator`, or with methods ``get_state()`` and ``set_state(state)``.
"""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_trpo.envs.attributes import plain_attributes, set_plain_attributes, what_is_lost

GetState = Callable[[Any], Any]
SetState = Callable[[Any, Any], None]
State = Any

_REGISTRY: dict[type, tuple[GetState, SetState]] = {}


def register_simulator(env_class: type[gym.Env[Any, Any]], get_state: GetState, set_state: SetState) -> None:
    """
    Make an environment, or a wrapper, one that vine sampling can branch from. Subclasses are included.

    :param env_class: class of the environment or of the wrapper; only its own layer, not what it wraps
    :param get_state: layer -> all that its next steps depend on, random generators included; later changes of the layer must
        not reach it
    :param set_state: layer, state -> nothing; the state may be set any number of times, so it must not be changed either
    """
    _REGISTRY[env_class] = (get_state, set_state)


def _mujoco_state(env: Any) -> State:
    # all of it, not the integration state alone: rewards read positions that the last step has left behind
    return copy.copy(env.data), plain_attributes(env, [env.data])


def _set_mujoco_state(env: Any, state: State) -> None:
    import mujoco  # type: ignore[import-untyped]

    data, attributes = state
    mujoco.mj_copyData(env.data, env.model, data)
    set_plain_attributes(env, attributes)


def _ale_state(env: Any) -> State:
    return env.ale.cloneState(include_rng=True), plain_attributes(env)


def _set_ale_state(env: Any, state: State) -> None:
    game, attributes = state
    env.ale.restoreState(game)
    set_plain_attributes(env, attributes)


def _stack_state(env: Any) -> State:
    return copy.deepcopy(env.stacked_obs.stacked_obs)


def _set_stack_state(env: Any, state: State) -> None:
    env.stacked_obs.stacked_obs = copy.deepcopy(state)


def _normalizer_state(env: Any) -> State:
    return {name: copy.deepcopy(getattr(env, name)) for name in ("returns", "old_obs", "old_reward")}


def _set_normalizer_state(env: Any, state: State) -> None:
    for name, value in state.items():
        setattr(env, name, copy.deepcopy(value))


@cache
def _register_known() -> None:
    """Once, when the first environment is asked for: MuJoCo and the Arcade Learning Environment take long to import."""
    plain = [
        *(AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, MountainCarEnv, PendulumEnv),
        *(wrappers.ClipAction, wrappers.DtypeObservation, wrappers.FlattenObservation, wrappers.FrameStackObservation),
        *(wrappers.OrderEnforcing, wrappers.PassiveEnvChecker, wrappers.RescaleAction, wrappers.RescaleObservation),
        *(wrappers.ReshapeObservation, wrappers.TimeAwareObservation, wrappers.TimeLimit),
        *(atari_wrappers.StickyActionEnv, atari_wrappers.NoopResetEnv, atari_wrappers.FireResetEnv),
        *(atari_wrappers.EpisodicLifeEnv, atari_wrappers.MaxAndSkipEnv, atari_wrappers.ClipRewardEnv),
        *(atari_wrappers.WarpFrame, atari_wrappers.AtariWrapper),
        *(DummyVecEnv, VecTransposeImage, VecCheckNan),
    ]
    for layer in plain:
        _REGISTRY.setdefault(layer, (plain_attributes, set_plain_attributes))
    _REGISTRY.setdefault(VecFrameStack, (_stack_state, _set_stack_state))
    _REGISTRY.setdefault(VecNormalize, (_normalizer_state, _set_normalizer_state))
    try:
        from gymnasium.envs.mujoco import MujocoEnv
    except (ImportError, gym.error.DependencyNotInstalled):
        pass
    else:
        _REGISTRY.setdefault(MujocoEnv, (_mujoco_state, _set_mujoco_state))
    try:
        from ale_py.env import AtariEnv
    except ImportError:
        pass
    else:
        _REGISTRY.setdefault(AtariEnv, (_ale_state, _set_ale_state))


def _methods(layer: object) -> tuple[GetState, SetState] | None:
    """How the state of one layer is read and set; None if nobody knows."""
    _register_known()
    for cls in type(layer).__mro__:
        if {"get_state", "set_state"} <= vars(cls).keys():  # together: MujocoEnv has a set_state of another meaning
            return lambda env: env.get_state(), lambda env, state: env.set_state(state)
        if cls in _REGISTRY:
            return _REGISTRY[cls]
    return None


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


def why_not_restorable(env: VecEnv) -> str | None:
    """
    :param env: the training environments
    :return: None if their state can be saved and restored; otherwise what stands against it, and what to do
    """
    layers = list(_layers(env))
    for layer in layers:
        if isinstance(layer, VecEnv) and not isinstance(layer, (VecEnvWrapper, DummyVecEnv)):
            return f"{type(layer).__name__} keeps its environments out of reach; put them into a DummyVecEnv"
        methods = _methods(layer)
        lost = what_is_lost(layer, [*layers, getattr(layer, "data", None)]) if _is_on_top(layer, methods) else None
        if methods is None or lost is not None:
            name = f"{type(layer).__module__}.{type(layer).__qualname__}"
            why = f": nobody knows how what its attribute `{lost}` holds may change" if lost else ""
            return (
                f"the state of {name} cannot be saved and restored{why}; give it methods get_state() and "
                "set_state(state), or call sb3_trpo.simulator.register_simulator with its class and two such functions"
            )
    return None


def _is_on_top(layer: object, methods: tuple[GetState, SetState] | None) -> bool:
    """Whether its class is the user's own on top of one whose attributes are known."""
    by_attributes = methods is not None and methods[0] in (plain_attributes, _mujoco_state, _ale_state)
    return by_attributes and type(layer) not in _REGISTRY and not isinstance(layer, VecEnv)


class Simulator:
    """
    The training environments as a simulator that can go back.

    :param env: the training environments
    :raises ValueError: if the state of a layer cannot be saved and restored
    """

    def __init__(self, env: VecEnv) -> None:
        reason = why_not_restorable(env)
        if reason is not None:
            raise ValueError(f"vine sampling needs an environment that can be restored: {reason}")
        self._env = env
        self._layers = [(layer, *(_methods(layer) or ())) for layer in _layers(env)]

    def save(self) -> list[State]:
        """
        :return: the state of all environments; of random generators theirs, and the global ones of Python and NumPy
        """
        return [get_state(layer) for layer, get_state, _ in self._layers] + [(random.getstate(), np.random.get_state())]

    def restore(self, snapshot: list[State], seed: int | None = None) -> None:
        """
        :param snapshot: what :meth:`save` gave; it may be restored any number of times
        :param seed: of other random numbers than those of the snapshot, where an environment draws from its ``np_random``
        """
        *states, (of_python, of_numpy) = snapshot
        for (layer, _, set_state), state in zip(self._layers, states, strict=True):
            set_state(layer, state)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if seed is not None:
            envs = [layer for layer, *_ in self._layers if isinstance(layer, gym.Env) and layer.unwrapped is layer]
            for env, seeds in zip(envs, np.random.SeedSequence(seed).spawn(len(envs)), strict=True):
                generator = env.np_random.bit_generator  # others may hold the same
                generator.state = type(generator)(seeds).state

    @contextmanager
    def excursion(self) -> Iterator[VecEnv]:
        """
        Leave the present state, and come back to it at the end, whatever happens.

        Meanwhile monitors see no step, and the statistics of ``VecNormalize`` stand still.

        :return: the environments to step
        """
        here = self.save()
        learning = [layer for layer, *_ in self._layers if isinstance(layer, VecNormalize) and layer.training]
        with _without_monitors(self._env) as env:
            try:
                for normalizer in learning:
                    normalizer.training = False
                yield env
            finally:
                self.restore(here)
                for normalizer in learning:
                    normalizer.training = True


@contextmanager
def _without_monitors(env: VecEnv) -> Iterator[VecEnv]:
    """Take every monitor out of the chain, and put it back at the end."""
    undo: list[Callable[[], None]] = []
    outer, parent = env, None
    vec_env: Any = env
    while isinstance(vec_env, VecEnvWrapper):
        if type(vec_env) is VecMonitor:
            if parent is None:
                outer = vec_env.venv
            else:
                undo.append(_splice(parent, "venv", vec_env.venv))
        else:
            parent = vec_env
        vec_env = vec_env.venv
    envs = vec_env.envs
    undo.append(_splice(vec_env, "envs", [_without_monitor(layer, undo) for layer in envs]))
    try:
        yield outer
    finally:
        for put_back in reversed(undo):  # a link that was bent twice goes back to where it was
            put_back()


def _without_monitor(env: Any, undo: list[Callable[[], None]]) -> Any:
    """The chain of one environment past its monitors."""
    while type(env) is Monitor:
        env = env.env
    layer = env
    while isinstance(layer, gym.Wrapper):
        inner: Any = layer.env
        while type(inner) is Monitor:
            inner = inner.env
        if inner is not layer.env:
            undo.append(_splice(layer, "env", inner))
        layer = inner
    return env


def _splice(owner: Any, name: str, value: Any) -> Callable[[], None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    return lambda: setattr(owner, name, before)

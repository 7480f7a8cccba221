"""Take monitors out of environments for a while, so that they see no steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor


@contextmanager
def without_monitors(env: VecEnv) -> Iterator[VecEnv]:
    """
    Take all monitors out of the environments and put them back at the end.

    :param env: vectorised environments with a ``DummyVecEnv`` inside
    :return: the environments without monitors
    """
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
        for put_back in reversed(undo):  # a link that was changed twice gets its first value back
            put_back()


def _without_monitor(env: Any, undo: list[Callable[[], None]]) -> Any:
    """Take the monitors out of one environment and return its outermost remaining layer."""
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

"""Random generators that belong to no single layer: the global ones, and those of spaces and of environments."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_trpo.envs.plain_data import GeneratorState, generator_state, is_generator, set_generator


def global_state() -> dict[str, Any]:
    """
    Save the global generators, which takes longer than a step of CartPole.

    :return: plain data; torch's generator is the CPU's
    """
    return {
        "torch": th.default_generator.get_state().numpy(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
    }


def set_global_state(state: dict[str, Any]) -> None:
    """
    Restore the global generators.

    :param state: what :func:`global_state` returned
    """
    th.default_generator.set_state(th.from_numpy(state["torch"]))
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


def drew_globally(before: dict[str, Any]) -> bool:
    """
    Tell whether somebody has drawn from the global generators since.

    :param before: what :func:`global_state` returned
    :return: whether one of them is in another state now
    """
    now = global_state()
    numpy, numpy_before = now["numpy"], before["numpy"]
    return not (
        np.array_equal(now["torch"], before["torch"])
        and now["python"] == before["python"]
        and all(numpy[name] == numpy_before[name] for name in ("has_gauss", "gauss"))
        and all(np.array_equal(numpy["state"][name], numpy_before["state"][name]) for name in ("key", "pos"))
    )


class EnvGenerator:
    """
    The ``np_random`` of an environment.

    :param env: the environment
    """

    _names = ("_np_random", "_np_random_seed")

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env

    def get(self) -> dict[str, Any]:
        """
        Save the generator.

        :return: plain data; nothing, where it has not been made yet
        """
        attributes = vars(self._env)
        values = {name: attributes[name] for name in self._names if name in attributes}
        return {name: generator_state(value) if is_generator(value) else value for name, value in values.items()}

    def set(self, state: dict[str, Any]) -> None:
        """
        Restore the generator.

        :param state: what :meth:`get` returned
        """
        attributes = vars(self._env)
        for name in self._names:
            if name not in state:
                attributes.pop(name, None)
            elif isinstance(state[name], GeneratorState):
                attributes[name] = set_generator(attributes.get(name), state[name])
            else:
                attributes[name] = state[name]


class SpaceGenerators:
    """
    The generators of the spaces that environments have as attributes: an environment may draw from them.

    :param layers: environments and wrappers
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        found = [value for layer in layers for value in vars(layer).values() if isinstance(value, gym.Space)]
        spaces = {id(part): part for space in found for part in _parts(space)}
        self._spaces = list(spaces.values())

    def get(self) -> list[GeneratorState | None]:
        """
        Save the generators.

        :return: one state a space; None where nobody has drawn yet
        """
        generators = [space._np_random for space in self._spaces]
        return [None if generator is None else generator_state(generator) for generator in generators]

    def set(self, states: list[GeneratorState | None]) -> None:
        """
        Restore the generators.

        :param states: what :meth:`get` returned
        """
        for space, state in zip(self._spaces, states, strict=True):
            if state is not None:
                space._np_random = set_generator(space._np_random, state)
            elif space._np_random is not None:
                space._np_random = None  # type: ignore[assignment]


def _parts(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    yield space
    inner = getattr(space, "spaces", ())
    for part in inner.values() if isinstance(inner, dict) else inner:
        yield from _parts(part)

"""Save and restore random generators: the global ones, and those of spaces and environments."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_trpo.snapshots.plain_data import GeneratorState, generator_state, set_generator


def global_state() -> dict[str, Any]:
    """
    Save the global generators of torch (for the CPU), Python and NumPy.

    This takes longer than a step of CartPole.

    :return: plain data
    """
    return {
        "torch": th.default_generator.get_state().numpy(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
    }


def set_global_state(state: dict[str, Any]) -> None:
    """
    Restore the global generators.

    :param state: a result of :func:`global_state`
    """
    th.default_generator.set_state(th.from_numpy(state["torch"]))
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


def drew_globally(before: dict[str, Any]) -> bool:
    """
    Tell whether the global generators were used since a state was saved.

    :param before: a result of :func:`global_state`
    :return: whether one of them has another state now
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
    Saves the ``np_random`` of an environment, which is None before its first use.

    :param env: the environment
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._attributes = vars(env)

    def get(self) -> tuple[dict[str, Any] | None, int | None]:
        """
        Save the generator.

        :return: state of the generator, or None before its first use, and its seed
        """
        generator = self._attributes.get("_np_random")
        state = None if generator is None else generator.bit_generator.state
        return state, self._attributes.get("_np_random_seed")

    def set(self, state_and_seed: tuple[dict[str, Any] | None, int | None]) -> None:
        """
        Restore the generator, in place if the environment has one of the same kind.

        :param state_and_seed: a result of :meth:`get`
        """
        state, self._attributes["_np_random_seed"] = state_and_seed
        if state is None:
            self._attributes["_np_random"] = None
            return
        try:
            self._attributes["_np_random"].bit_generator.state = state
        except (KeyError, AttributeError, ValueError):  # there is no generator yet, or it has another algorithm
            self._attributes["_np_random"] = set_generator(None, GeneratorState("numpy.Generator", state))


class SpaceGenerators:
    """
    Saves the generators of the spaces that are attributes of environments, which may draw from them.

    :param layers: environments and wrappers
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        found = [value for layer in layers for value in vars(layer).values() if isinstance(value, gym.Space)]
        spaces = {id(part): part for space in found for part in _parts(space)}
        self._spaces = list(spaces.values())

    def get(self) -> list[GeneratorState | None] | None:
        """
        Save the generators.

        :return: one state per space, or None for a space whose generator is unused; None: all are unused
        """
        if self._unused():
            return None
        generators = [space._np_random for space in self._spaces]
        return [None if generator is None else generator_state(generator) for generator in generators]

    def _unused(self) -> bool:
        for space in self._spaces:  # noqa: SIM110 (`all` takes three times as long)
            if space._np_random is not None:
                return False
        return True

    def set(self, states: list[GeneratorState | None] | None) -> None:
        """
        Restore the generators.

        :param states: a result of :meth:`get`
        """
        if states is None and self._unused():
            return
        for space, state in zip(self._spaces, states or [None] * len(self._spaces), strict=True):
            if state is not None:
                space._np_random = set_generator(space._np_random, state)
            elif space._np_random is not None:
                space._np_random = None  # type: ignore[assignment]


def _parts(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    yield space
    inner = getattr(space, "spaces", ())
    for part in inner.values() if isinstance(inner, dict) else inner:
        yield from _parts(part)

"""Random generators that belong to no single layer: the global ones, and those of spaces and of environments."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_trpo.envs.plain_data import GeneratorState, generator_state, set_generator


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
    The ``np_random`` of an environment. It is None until it is asked for.

    :param env: the environment
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._attributes = vars(env)

    def get(self) -> tuple[dict[str, Any] | None, int | None]:
        """
        Save the generator.

        :return: its state and its seed
        """
        generator = self._attributes.get("_np_random")
        state = None if generator is None else generator.bit_generator.state
        return state, self._attributes.get("_np_random_seed")

    def set(self, state_and_seed: tuple[dict[str, Any] | None, int | None]) -> None:
        """
        Restore the generator, in place where there is one of its kind.

        :param state_and_seed: what :meth:`get` returned
        """
        state, self._attributes["_np_random_seed"] = state_and_seed
        if state is None:
            self._attributes["_np_random"] = None
            return
        try:
            self._attributes["_np_random"].bit_generator.state = state
        except (KeyError, AttributeError, ValueError):  # none yet, or one of another algorithm
            self._attributes["_np_random"] = set_generator(None, GeneratorState("numpy.Generator", state))


class SpaceGenerators:
    """
    The generators of the spaces that environments have as attributes: an environment may draw from them.

    :param layers: environments and wrappers
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        found = [value for layer in layers for value in vars(layer).values() if isinstance(value, gym.Space)]
        spaces = {id(part): part for space in found for part in _parts(space)}
        self._spaces = list(spaces.values())

    def get(self) -> list[GeneratorState | None] | None:
        """
        Save the generators.

        :return: one state a space, None where nobody has drawn yet; None: nobody has drawn from any
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

        :param states: what :meth:`get` returned
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

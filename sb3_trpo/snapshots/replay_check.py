"""Check by trial that restored environments repeat themselves, because hidden state shows only in their steps."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.snapshots.random_generators import drew_globally, global_state
from sb3_trpo.snapshots.simulator import Simulator

_BEFORE = (3, 12)
"""Steps before each saved state: some state appears in the first step, some only after a robot has touched the ground."""
_REPLAYS = 2
"""Number of times that the state is restored. A second time shows whether setting the state changes it."""

Act = Callable[[Any], np.ndarray]


class _Seen(NamedTuple):
    """Holds the results of a step or a reset."""

    step: str
    values: list[tuple[str, Any]]


def check_replay(simulator: Simulator, act: Act, n_steps: int = 10) -> None:
    """
    Step and reset the environments from two saved states, restore each state, and compare the repeated steps.

    Afterwards, environments and random generators are as before. The check sets ``simulator.draws_globally`` to whether the
    environments draw from the global generators.

    :param simulator: the training environments, reset or not
    :param act: function from observations to actions for the environments; it must not use the global random generators
    :param n_steps: number of steps before the reset, and of steps after it
    :raises ValueError: if an environment does not repeat itself; the message names it and the difference
    """
    simulator.draws_globally = True
    with simulator.excursion(perhaps_not_reset=True) as env:
        observations = env.reset()
        draws_globally = False
        for n_before in _BEFORE:
            for _ in range(n_before):
                observations = env.step(act(observations))[0]
            draws_globally |= _check_state(simulator, env, act, observations, n_steps)
    simulator.draws_globally = draws_globally


def _check_state(simulator: Simulator, env: VecEnv, act: Act, observations: Any, n_steps: int) -> bool:
    """Check the present state, restore it at the end, and tell whether a global generator was used."""
    snapshot, generators = simulator.save(), global_state()
    actions: list[np.ndarray] = []
    first = list(_run(env, _recorded(act, actions), observations, n_steps))
    draws_globally = drew_globally(generators)
    for _ in range(_REPLAYS):
        simulator.restore(snapshot)
        second = _run(env, _repeated(actions), observations, n_steps)
        for seen, repeated in zip(first, second, strict=True):
            _compare(env, seen, repeated)
    simulator.restore(snapshot)
    return draws_globally


def _recorded(act: Act, actions: list[np.ndarray]) -> Act:
    def recorded(observations: Any) -> np.ndarray:
        actions.append(np.array(act(observations)))
        return actions[-1]

    return recorded


def _repeated(actions: list[np.ndarray]) -> Act:
    again = iter(actions)
    return lambda _: next(again)


def _run(env: VecEnv, act: Act, observations: Any, n_steps: int) -> Iterator[_Seen]:
    for part in range(2):
        for step in range(n_steps):
            observations, rewards, dones, infos = env.step(act(observations).copy())
            limits = np.array([info.get("TimeLimit.truncated", False) for info in infos])
            values = [*_arrays("observation", observations), ("reward", rewards), ("end", dones), ("time limit", limits)]
            where = f"{step + 1} steps after the state was restored" if part == 0 else f"{step + 1} steps after a reset"
            yield _Seen(where, [(name, np.array(value)) for name, value in values])
        if part == 0:
            observations = env.reset()
            yield _Seen("at a reset", [(name, np.array(value)) for name, value in _arrays("observation", observations)])


def _arrays(name: str, value: Any) -> list[tuple[str, Any]]:
    return [(f"{name} {key!r}", part) for key, part in value.items()] if isinstance(value, dict) else [(name, value)]


def _compare(env: VecEnv, seen: _Seen, repeated: _Seen) -> None:
    for (name, first), (_, second) in zip(seen.values, repeated.values, strict=True):
        same = [a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True)]
        if not all(same):
            i = same.index(False)
            raise ValueError(_message(env, i, f"{seen.step} the {name} was {first[i]}, then {second[i]}"))


def _message(env: VecEnv, i: int, difference: str) -> str:
    layer = env.get_attr("unwrapped", i)[0]
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return (
        f"vine sampling needs an environment that can be restored: environment {i}, {name}, does not repeat itself when its "
        f"state is restored and the same actions are taken: {difference}. Its steps depend on something that is not saved, "
        "in the environment or in a wrapper: a variable of a function, a class attribute, a torch module or an attribute that "
        "get_state() leaves out. Give the class methods get_state() and set_state(state) that cover it, or call "
        "sb3_trpo.register_simulator with the class and two such functions (sb3_trpo.deepcopy_state is a pair for "
        "environments in pure Python)"
    )

"""
Save and restore the exact state of simulators: MuJoCo, the Arcade Learning Environment and classic control.

An environment is a chain of wrappers around a simulator, inside SB3's ``DummyVecEnv`` and possibly SB3's wrappers around it.
A snapshot has the state of every layer of this chain. It is plain data: it can be pickled, and it can be restored into new
copies of the same environments in another process. A custom environment is supported if it is registered with
:func:`~sb3_trpo.register_simulator` or has methods ``get_state()`` and ``set_state(state)``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from sb3_trpo.snapshots.known_layers import known_layers
from sb3_trpo.snapshots.layer_states import LayerStates, chain_of
from sb3_trpo.snapshots.monitors import without_monitors
from sb3_trpo.snapshots.random_generators import drew_globally, global_state, set_global_state

_NOT_SAVED = "not saved: it has not been reset yet"


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


def _without_monitors(env: VecEnv) -> list[Any]:
    """Find the layers whose state matters to branches, which bypass the monitors."""
    return [layer for layer in chain_of(env) if type(layer) not in (Monitor, VecMonitor)]


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
        try:
            self._states = LayerStates(_without_monitors(env), known_layers())
        except ValueError as error:
            raise ValueError(f"vine sampling needs an environment that can be restored: {error}") from None

    def is_of(self, env: VecEnv) -> bool:
        """
        Tell whether the simulator was made for these environments.

        :param env: training environments
        :return: whether they are the same objects and have the same wrappers as when the simulator was made
        """
        layers = _without_monitors(env)
        return len(layers) == len(self._states.layers) and all(map(lambda a, b: a is b, layers, self._states.layers))

    def save(self) -> Snapshot:
        """
        Save the state of all environments and of all random generators that they may draw from.

        :return: the state
        """
        generators = global_state() if self.draws_globally else None
        states = self._states
        return Snapshot(states.names, [get() for get in states.getters], states.spaces.get(), generators)

    def restore(self, snapshot: Snapshot, seed: int | None = None, first: int = 0) -> None:
        """
        Restore a state.

        :param snapshot: a result of :meth:`save`, of these environments or of copies in another process; it may be restored
            any number of times
        :param seed: seed for each environment's ``np_random``; None: restore the generators of the snapshot
        :param first: number of environments before these in a larger set that the seed is for
        :raises ValueError: if the snapshot is of other environments
        """
        names = self._states.names
        if snapshot.layers != names:
            raise ValueError(f"`snapshot` must have the layers of these environments, {names}, not {snapshot.layers}")
        self._states.set(snapshot.states, _NOT_SAVED)
        self._states.spaces.set(snapshot.spaces)
        if snapshot.generators is not None:
            set_global_state(snapshot.generators)
        if seed is not None:
            self._seed(seed, first)

    def _seed(self, seed: int, first: int) -> None:
        envs = [layer for layer in self._states.layers if isinstance(layer, gym.Env) and layer.unwrapped is layer]
        for env, seeds in zip(envs, np.random.SeedSequence(seed).spawn(first + len(envs))[first:], strict=True):
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
        spaces, generators = self._states.spaces.get(), global_state()
        states = [_try(get) if perhaps_not_reset else get() for get in self._states.getters]
        here = Snapshot(self._states.names, states, spaces, generators)
        learning = [layer for layer in self._states.layers if isinstance(layer, VecNormalize) and layer.training]
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

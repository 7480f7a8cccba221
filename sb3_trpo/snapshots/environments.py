"""Save and restore everything that the rest of a run depends on in its environments, in worker processes too."""

from typing import Any, NamedTuple

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from sb3_trpo.checks import described
from sb3_trpo.snapshots.known_layers import layers_of_runs
from sb3_trpo.snapshots.layer_states import LayerStates, chain_of
from sb3_trpo.snapshots.random_generators import global_state, set_global_state


class EnvironmentsState(NamedTuple):
    """
    Holds the state of environments as plain data.

    :param layers: class of each layer, from outside to inside, environment by environment
    :param states: states of all parts of all layers
    :param spaces: states of the spaces' random generators; None: nothing draws from them
    :param workers: state of the environment of each worker process; None: there are no workers
    """

    layers: tuple[str, ...]
    states: list[Any]
    spaces: list[Any] | None
    workers: list[Any] | None


class Environments:
    """
    Saves and restores the environments of a run: monitors and the statistics of ``VecNormalize`` besides what
    :class:`~sb3_trpo.snapshots.simulator.Simulator` saves, but not the global random generators of this process.

    The environments of a ``SubprocVecEnv`` need :class:`ResumableEnv` as their outermost wrapper.

    :param env: the environments
    :raises ValueError: if the state of a layer cannot be saved and restored; the message names the layer
    """

    def __init__(self, env: VecEnv | gym.Env[Any, Any]) -> None:
        layers = list(chain_of(env))
        base = next((layer for layer in layers if isinstance(layer, VecEnv) and not isinstance(layer, VecEnvWrapper)), None)
        self._workers = None if base is None or isinstance(base, DummyVecEnv) else base
        if self._workers is not None:
            _check_workers(self._workers)
            layers.remove(self._workers)
        self._states = LayerStates(layers, layers_of_runs())

    def get(self) -> EnvironmentsState:
        """
        Save the state.

        :return: plain data
        """
        states = self._states
        workers = None if self._workers is None else self._workers.env_method("save_for_resume")
        return EnvironmentsState(states.names, [get() for get in states.getters], states.spaces.get(), workers)

    def set(self, state: EnvironmentsState) -> None:
        """
        Restore a state.

        :param state: a result of :meth:`get`, of these environments or of copies in another process
        :raises ValueError: if the state is of other environments
        """
        names = self._states.names
        if tuple(state.layers) != names:
            raise ValueError(f"`env` must have the layers {state.layers} of the saved environments, not {names}")
        if self._workers is not None:
            workers = state.workers or []
            if len(workers) != self._workers.num_envs:
                raise ValueError(f"`env` must have {len(workers)} worker processes, as when it was saved, not {names}")
            for i, part in enumerate(workers):
                self._workers.env_method("restore_for_resume", part, indices=i)
        self._states.set(state.states)
        self._states.spaces.set(state.spaces)


class ResumableEnv(gym.Wrapper[Any, Any, Any, Any]):
    """
    Lets a run with this environment in a worker process of ``SubprocVecEnv`` be resumed exactly; it must be the outermost
    wrapper.

    :param env: the environment, whose state must be known or registered as for vine sampling
    :raises ValueError: if the state of a layer cannot be saved and restored
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._environments = Environments(env)

    def save_for_resume(self) -> tuple[EnvironmentsState, dict[str, Any]]:
        """
        Save the environment and the global random generators of its process.

        :return: plain data
        """
        return self._environments.get(), global_state()

    def restore_for_resume(self, state: tuple[EnvironmentsState, dict[str, Any]]) -> None:
        """
        Restore a state.

        :param state: a result of :meth:`save_for_resume`
        """
        self._environments.set(state[0])
        set_global_state(state[1])


def _check_workers(env: VecEnv) -> None:
    """Refuse environments in other processes that cannot be saved there."""
    if not env.has_attr("save_for_resume"):
        raise ValueError(
            f"the environments of a {described(type(env).__name__)} can be saved only in their own processes: "
            "wrap each of them in sb3_trpo.ResumableEnv, outermost"
        )

"""Reads a full rollout buffer as one batch."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.originals import is_original

StateFields = Callable[[Any], dict[str, Any]]
"""Maps a buffer, or samples of one, to its fields of :class:`~sb3_trpo.batch.states.States` by name."""

_READING_METHODS = ("get", "_get_samples", "to_torch", "swap_and_flatten")
"""Methods through which SB3's buffers give their samples."""


def keeps_sb3_layout(buffer: RolloutBuffer) -> bool:
    """
    Tell whether a buffer makes its samples as SB3's buffers do, so that its arrays may be read directly.

    :param buffer: a rollout buffer
    :return: whether it does
    """
    cls = type(buffer)
    for base in (RolloutBuffer, DictRolloutBuffer):
        read = {name: next(owner for owner in base.__mro__ if name in vars(owner)) for name in _READING_METHODS}
        if all(getattr(cls, name) is getattr(owner, name) and is_original(owner, name) for name, owner in read.items()):
            return not set(vars(buffer)).intersection(read)
    return False


def read_batch(buffer: RolloutBuffer, action_space: spaces.Space[Any], state_fields: StateFields) -> Batch:
    """
    Read the whole rollout as a batch, without a draw from a global random generator.

    SB3's buffers are read in place, in time-major order. For a buffer with a custom ``get``, that is called once.

    :param buffer: a full rollout buffer
    :param action_space: the action space
    :param state_fields: selects the states among the arrays of the buffer, or of its samples
    :return: all n_steps * n_envs transitions
    :raises ValueError: if the buffer is not full
    """
    if not buffer.full:
        raise ValueError(
            f"there is nothing to train on: the rollout buffer has {buffer.pos} of its {buffer.buffer_size} steps"
        )
    if keeps_sb3_layout(buffer):
        states = States(**{name: _rows(buffer, value) for name, value in state_fields(buffer).items()})
        actions, log_prob, advantages, returns = (
            _rows(buffer, array).to(buffer.device, th.float32)
            for array in (buffer.actions, buffer.log_probs, buffer.advantages, buffer.returns)
        )
    else:
        samples = _all_samples(buffer)
        states, actions = States(**state_fields(samples)), samples.actions
        actions = actions if actions.is_floating_point() else actions.float()  # as in SB3's layout, whatever the space's dtype
        log_prob, advantages, returns = samples.old_log_prob, samples.advantages, samples.returns
    if isinstance(action_space, spaces.Discrete):
        actions = actions.long().flatten()
    return Batch(states, actions, log_prob.flatten(), advantages.flatten(), returns.flatten())


def _all_samples(buffer: RolloutBuffer) -> Any:
    """Read the whole rollout from a custom ``get``, and restore NumPy's global generator."""
    state = np.random.get_state()
    try:
        return next(iter(buffer.get(*_size_if_needed(buffer))))
    finally:
        np.random.set_state(state)


def _size_if_needed(buffer: RolloutBuffer) -> list[int]:
    """Return the arguments with which ``get`` gives everything: none if its default is None, as in SB3, else the size."""
    first = next(iter(inspect.signature(buffer.get).parameters.values()), None)
    return [] if first is not None and first.default is None else [buffer.buffer_size * buffer.n_envs]


def _rows(buffer: RolloutBuffer, value: Any) -> Any:
    """View an array of the buffer as one row per transition, in time-major order; ``get`` may have reordered it."""
    if isinstance(value, dict):
        return {key: _rows(buffer, part) for key, part in value.items()}
    if buffer.generator_ready:
        value = value.reshape(buffer.n_envs, buffer.buffer_size, *value.shape[1:]).swapaxes(0, 1)
    return th.from_numpy(value.reshape(buffer.buffer_size * buffer.n_envs, *value.shape[2:]))

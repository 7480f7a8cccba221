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

StateFields = Callable[[Any], dict[str, Any]]
"""Buffer, or samples of it -> its fields of :class:`~sb3_trpo.batch.states.States` by name."""


def keeps_sb3_layout(buffer: RolloutBuffer) -> bool:
    """
    Tell whether a buffer's samples are read as SB3's own buffers do, so that its arrays may be read directly.

    :param buffer: a rollout buffer
    :return: whether they are
    """
    own = (RolloutBuffer, DictRolloutBuffer)
    cls = type(buffer)
    return any(cls.get is base.get and cls._get_samples is base._get_samples for base in own)


def read_batch(buffer: RolloutBuffer, action_space: spaces.Space[Any], state_fields: StateFields) -> Batch:
    """
    Read the whole rollout as a batch. Draws nothing from a global random generator.

    SB3's own buffers are read in place, in time-major order; a buffer with its own ``get`` is asked for one batch.

    :param buffer: a full rollout buffer
    :param action_space: the action space
    :param state_fields: which of the buffer's arrays, or of its samples, are the states
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
        log_prob, advantages, returns = samples.old_log_prob, samples.advantages, samples.returns
    if isinstance(action_space, spaces.Discrete):
        actions = actions.long().flatten()
    return Batch(states, actions, log_prob.flatten(), advantages.flatten(), returns.flatten())


def _all_samples(buffer: RolloutBuffer) -> Any:
    """The whole rollout from the buffer's own ``get``; NumPy's global generator is afterwards as before."""
    state = np.random.get_state()
    try:
        return next(iter(buffer.get(*_size_if_needed(buffer))))
    finally:
        np.random.set_state(state)


def _size_if_needed(buffer: RolloutBuffer) -> list[int]:
    """SB3's ``get`` gives everything where the size is None, its default; PPO always gives one, and another may need it."""
    first = next(iter(inspect.signature(buffer.get).parameters.values()), None)
    return [] if first is not None and first.default is None else [buffer.buffer_size * buffer.n_envs]


def _rows(buffer: RolloutBuffer, value: Any) -> Any:
    """View an array of the buffer as one row a transition, step by step; ``get`` may have put it in its own order."""
    if isinstance(value, dict):
        return {key: _rows(buffer, part) for key, part in value.items()}
    if buffer.generator_ready:
        value = value.reshape(buffer.n_envs, buffer.buffer_size, *value.shape[1:]).swapaxes(0, 1)
    return th.from_numpy(value.reshape(buffer.buffer_size * buffer.n_envs, *value.shape[2:]))

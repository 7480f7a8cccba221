"""A rollout as one batch of transitions, which the policy step and the critic read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.distributions import Distribution

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
Index: TypeAlias = slice | th.Tensor


@dataclass(frozen=True)
class Batch:
    """
    B transitions of one rollout. Observations stay in the buffer's own dtype and memory until a chunk is read.

    :param observations: shape (B, ...), or a dict of such
    :param actions: shape (B, d); (B,) integers for a discrete action space
    :param old_log_prob: log-probability of the action when it was taken, shape (B,), nats
    :param advantages: shape (B,)
    :param returns: targets of the critic, shape (B,)
    """

    observations: Observations
    actions: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor

    def __len__(self) -> int:
        return len(self.advantages)

    def take(self, index: Index) -> Batch:
        """
        Some of the transitions, on the device of the advantages.

        :param index: a slice, or integer positions of shape (b,)
        :return: a batch of b transitions
        """
        parts = {f.name: _rows_at(getattr(self, f.name), index) for f in fields(self) if f.name != "observations"}
        return replace(self, observations=self.observations_at(index), **parts)

    def observations_at(self, index: Index) -> Observations:
        """
        The observations of some of the transitions, on the device of the advantages.

        :param index: a slice, or integer positions of shape (b,)
        :return: b observations
        """
        return map_observations(self.observations, lambda obs: _rows_at(obs, index).to(self.advantages.device))

    def chunks(self, size: int, positions: th.Tensor | None = None) -> Iterator[Batch]:
        """
        :param size: most transitions in one chunk
        :param positions: those to read, shape (b,); None: all
        :return: consecutive parts of the batch, or of what ``positions`` names
        """
        for start in range(0, len(self) if positions is None else len(positions), size):
            yield self.chunk(start, size, positions)

    def chunk(self, start: int, size: int, positions: th.Tensor | None = None) -> Batch:
        """
        :param start: where to begin
        :param size: most transitions to read
        :param positions: those to read from, shape (b,); None: all
        :return: one consecutive part of the batch, or of what ``positions`` names
        """
        part = slice(start, start + size)
        return self.take(part if positions is None else positions[part])

    def estimates(self, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
        """
        Estimate averages over the actions of another policy from those that were taken.

        :param distribution: π_θ at the B states
        :return: estimates of the mean of Â and of the mean of -log π_θ, of each state, shape (B,)
        """
        log_prob = distribution.log_prob(self.actions)
        ratio = th.exp(log_prob - self.old_log_prob)
        return ratio * self.advantages, -ratio * log_prob

    def with_advantages(self, advantages: th.Tensor) -> Batch:
        """
        :param advantages: shape (B,)
        :return: the same batch with other advantages
        """
        return replace(self, advantages=advantages)


def _rows_at(tensor: th.Tensor, index: Index) -> th.Tensor:
    if isinstance(index, slice):
        return tensor[index]
    return tensor.index_select(0, index.to(tensor.device))  # copies whole rows, which tensor[index] does not


def map_observations(observations: Observations, function: Callable[[th.Tensor], th.Tensor]) -> Observations:
    """
    Apply a function to the observations, to each entry when they are a dict.

    :param observations: shape (B, ...), or a dict of such
    :param function: what to apply
    :return: the results, in the same structure
    """
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)


def keeps_sb3_layout(buffer: RolloutBuffer) -> bool:
    """
    :param buffer: a rollout buffer
    :return: whether its samples are read as SB3's own buffers do, so that its arrays may be read directly
    """
    own = (RolloutBuffer, DictRolloutBuffer)
    cls = type(buffer)
    return any(cls.get is base.get and cls._get_samples is base._get_samples for base in own)


def read_batch(buffer: RolloutBuffer, action_space: spaces.Space[Any]) -> Batch:
    """
    The whole rollout as a batch. Draws nothing from a global random generator.

    SB3's own buffers are read in place, in time-major order; a buffer with its own ``get`` is asked for one batch.

    :param buffer: a full rollout buffer
    :param action_space: the action space
    :return: all n_steps * n_envs transitions
    :raises ValueError: if the buffer is not full
    """
    if not buffer.full:
        raise ValueError(
            f"there is nothing to train on: the rollout buffer has {buffer.pos} of its {buffer.buffer_size} steps"
        )
    if keeps_sb3_layout(buffer):
        observations: Observations
        if isinstance(buffer.observations, dict):
            observations = {key: _rows(buffer, value) for key, value in buffer.observations.items()}
        else:
            observations = _rows(buffer, buffer.observations)
        actions, log_prob, advantages, returns = (
            _rows(buffer, array).to(buffer.device, th.float32)
            for array in (buffer.actions, buffer.log_probs, buffer.advantages, buffer.returns)
        )
    else:
        state = np.random.get_state()
        samples = next(iter(buffer.get(*_size_if_needed(buffer))))
        np.random.set_state(state)
        observations, actions = samples.observations, samples.actions
        log_prob, advantages, returns = samples.old_log_prob, samples.advantages, samples.returns
    if isinstance(action_space, spaces.Discrete):
        actions = actions.long().flatten()
    return Batch(observations, actions, log_prob.flatten(), advantages.flatten(), returns.flatten())


def _size_if_needed(buffer: RolloutBuffer) -> list[int]:
    """SB3's ``get`` gives everything where the size is None, its default; PPO always gives one, and another may need it."""
    first = next(iter(inspect.signature(buffer.get).parameters.values()), None)
    return [] if first is not None and first.default is None else [buffer.buffer_size * buffer.n_envs]


def _rows(buffer: RolloutBuffer, array: np.ndarray) -> th.Tensor:
    """View an array of the buffer as one row a transition, step by step; ``get`` may have put it in its own order."""
    if buffer.generator_ready:
        array = array.reshape(buffer.n_envs, buffer.buffer_size, *array.shape[1:]).swapaxes(0, 1)
    return th.from_numpy(array.reshape(buffer.buffer_size * buffer.n_envs, *array.shape[2:]))


def minibatches(batch: Batch, batch_size: int, n_envs: int) -> Iterator[np.ndarray]:
    """
    Positions of the mini-batches of one epoch, as ``RolloutBuffer.get`` draws them (NumPy's global generator).

    :param batch: the whole rollout, in time-major order
    :param batch_size: transitions in a mini-batch
    :param n_envs: number of environments
    :return: integer positions, each of shape (b,)
    """
    positions = _env_major(np.random.permutation(len(batch)), len(batch), n_envs)
    for start in range(0, len(batch), batch_size):
        yield positions[start : start + batch_size]


def every_kth(batch: Batch, k: int, n_envs: int) -> th.Tensor:
    """
    Every k-th transition, counted environment by environment, so that none is left out whatever k and ``n_envs``.

    :param batch: the whole rollout, in time-major order
    :param k: 1 for all of them
    :param n_envs: number of environments
    :return: positions, shape (ceil(B / k),)
    """
    if k == 1 or len(batch) % n_envs:  # a rollout buffer of the user's own may hold another number than n_steps * n_envs
        return th.arange(0, len(batch), k)
    return th.from_numpy(_env_major(np.arange(0, len(batch), k), len(batch), n_envs))


def _env_major(positions: np.ndarray, size: int, n_envs: int) -> np.ndarray:
    """Where the batch, which goes step by step, holds the transitions that SB3 numbers environment by environment."""
    n_steps = size // n_envs
    return np.asarray(positions % n_steps * n_envs + positions // n_steps)

"""Rollouts in windows, the units of recurrent policies: consecutive steps of one environment within one episode."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch as th

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import Index, States, map_observations, rows_at


def in_windows(batch: Batch, n_envs: int, memory: tuple[th.Tensor, ...]) -> Batch:
    """
    Cut a rollout where episodes begin. Each window begins with the memory that the policy had there.

    The windows are sorted from the shortest to the longest, so that parts of the batch have windows of similar length.

    :param batch: the rollout, in time-major order, with ``episode_starts``
    :param n_envs: number of environments
    :param memory: memory before the first step of the rollout, each tensor of shape (n_envs, ...); that of an environment
        whose episode begins there does not matter
    :return: the same transitions, sorted by window
    :raises ValueError: if the memory is not that of ``n_envs`` environments
    """
    starts = batch.states.episode_starts
    assert starts is not None
    if len(batch) % n_envs or any(len(part) != n_envs for part in memory):
        raise ValueError(f"the rollout needs the memory of its {n_envs} environments before its first step")
    windows = Windows.of((starts != 0).view(-1, n_envs).cpu())
    unit_starts = windows.lengths.cumsum(0) - windows.lengths
    batch = _reordered(batch, windows.rows)
    of_units = tuple(windows.memory(part) for part in memory)
    return replace(batch, states=replace(batch.states, memory=of_units, unit_starts=unit_starts))


class Windows(NamedTuple):
    """
    The windows of T steps of N environments, sorted from the shortest to the longest.

    :param rows: positions of their steps in time-major order, window by window, shape (T * N,)
    :param lengths: number of steps of each, shape (U,)
    :param envs: environment of each, shape (U,)
    :param continued: whether the first step continues an episode, shape (U,), bool
    """

    rows: th.Tensor
    lengths: th.Tensor
    envs: th.Tensor
    continued: th.Tensor

    @classmethod
    def of(cls, starts: th.Tensor) -> Windows:
        """
        Cut steps where episodes begin.

        :param starts: whether an episode begins, shape (T, N), bool, on the CPU
        :return: the windows
        """
        n_steps, n_envs = starts.shape
        begins = starts.T.clone()  # environment by environment
        begins[:, 0] = True
        first = begins.flatten().nonzero().flatten()
        lengths = th.diff(first, append=first.new_tensor([starts.numel()]))
        order = th.argsort(lengths, stable=True)
        first, lengths = first[order], lengths[order]
        env_major = th.repeat_interleave(first - (lengths.cumsum(0) - lengths), lengths) + th.arange(starts.numel())
        rows = env_major % n_steps * n_envs + env_major // n_steps
        return cls(rows, lengths, first // n_steps, ~starts.T.flatten()[first])

    def memory(self, memory: th.Tensor) -> th.Tensor:
        """
        Select the memory before the first step of each window.

        :param memory: memory of the environments before the first of all steps, shape (N, ...)
        :return: shape (U, ...); zeros where an episode begins
        """
        of_windows = memory[self.envs.to(memory.device)]
        keep = self.continued.to(memory.device).view(-1, *[1] * (memory.dim() - 1))
        return th.where(keep, of_windows, th.zeros_like(of_windows))


def _reordered(batch: Batch, rows: th.Tensor) -> Batch:
    """Sort the transitions of a batch of single transitions."""
    parts: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "states"}
    parts = {name: None if value is None else rows_at(value, rows) for name, value in parts.items()}
    return replace(batch, states=_reordered_states(batch.states, rows), **parts)


def _reordered_states(states: States, rows: Index) -> States:
    def sort(tensor: th.Tensor | None) -> th.Tensor | None:
        return None if tensor is None else rows_at(tensor, rows)

    return replace(
        states,
        observations=map_observations(states.observations, lambda part: rows_at(part, rows)),
        action_masks=sort(states.action_masks),
        episode_starts=sort(states.episode_starts),
    )


def cut_lengths(lengths: th.Tensor, longest: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Cut windows into pieces.

    :param lengths: steps of each window, shape (U,)
    :param longest: largest number of steps of a piece
    :return: steps of each piece, in order, and the window that it belongs to, each of shape (V,)
    """
    n_pieces = (lengths + longest - 1) // longest
    window = th.repeat_interleave(th.arange(len(lengths)), n_pieces)
    number = th.arange(len(window)) - th.repeat_interleave(n_pieces.cumsum(0) - n_pieces, n_pieces)
    return th.minimum(lengths[window] - number * longest, th.full_like(window, longest)), window

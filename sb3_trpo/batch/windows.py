"""Rollouts in windows, the units of recurrent policies: consecutive steps of one environment within one episode."""

from dataclasses import fields, replace
from typing import Any

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
    n_steps = len(batch) // n_envs
    begins = (starts != 0).view(n_steps, n_envs).T.cpu().clone()  # environment by environment
    fresh = begins.clone()
    begins[:, 0] = True
    first = begins.flatten().nonzero().flatten()
    lengths = th.diff(first, append=first.new_tensor([len(batch)]))
    order = th.argsort(lengths, stable=True)
    first, lengths = first[order], lengths[order]
    unit_starts = lengths.cumsum(0) - lengths
    rows = th.repeat_interleave(first - unit_starts, lengths) + th.arange(len(batch))
    continued = ~fresh.flatten()[first]
    of_units = tuple(_masked(part[(first // n_steps).to(part.device)], continued) for part in memory)
    batch = _reordered(batch, rows % n_steps * n_envs + rows // n_steps)
    return replace(batch, states=replace(batch.states, memory=of_units, unit_starts=unit_starts))


def _masked(memory: th.Tensor, continued: th.Tensor) -> th.Tensor:
    """Replace the memory of the windows that begin with an episode by zeros."""
    keep = continued.to(memory.device).view(-1, *[1] * (memory.dim() - 1))
    return th.where(keep, memory, th.zeros_like(memory))


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

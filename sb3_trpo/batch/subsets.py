"""Parts of a batch: mini-batches, every k-th unit, and the units of Fisher products."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_trpo.batch.batch import Batch


@dataclass(frozen=True)
class Subsets:
    """
    The positions of the units that each part of the problem reads; None: all.

    :param gradient: units of the gradient, shape (u,)
    :param curvature: units of the Fisher-vector products, shape (u,)
    :param independent: units of the estimate of the step's length, shape (u,); None: there is no such estimate
    """

    gradient: th.Tensor | None = None
    curvature: th.Tensor | None = None
    independent: th.Tensor | None = None


ALL_UNITS = Subsets()
"""Every part of the problem reads the whole batch."""


def minibatches(batch: Batch, batch_size: int, n_envs: int) -> Iterator[np.ndarray]:
    """
    Draw the mini-batches of one epoch, as ``RolloutBuffer.get`` draws them (NumPy's global generator).

    :param batch: the whole rollout, in time-major order
    :param batch_size: transitions in a mini-batch, unless one unit has more
    :param n_envs: number of environments
    :return: positions of their units, each of shape (u,)
    """
    order = np.random.permutation(batch.n_units)
    if batch.states.unit_starts is None:
        order = _env_major(order, batch.n_units, n_envs)
        yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        return
    for part in batch.parts(batch_size, th.from_numpy(order)):
        assert isinstance(part, th.Tensor)
        yield part.numpy()


def every_kth(batch: Batch, k: int, n_envs: int) -> th.Tensor:
    """
    Take every k-th unit.

    Single transitions are counted environment by environment, so that no environment is left out for any k and ``n_envs``.

    :param batch: the whole rollout, in time-major order
    :param k: distance between the units; 1 takes all
    :param n_envs: number of environments
    :return: positions, shape (ceil(U / k),)
    """
    # a custom rollout buffer may not hold n_steps * n_envs transitions
    if k == 1 or batch.states.unit_starts is not None or len(batch) % n_envs:
        return th.arange(0, batch.n_units, k)
    return th.from_numpy(_env_major(np.arange(0, len(batch), k), len(batch), n_envs))


def fisher_subsets(candidates: th.Tensor, fraction: float, n_units: int, seed: tuple[int, ...]) -> tuple[th.Tensor, th.Tensor]:
    """
    Draw the units of the Fisher products, and other units that measure the length of the solver's step.

    The solver fits its step to the noise of its states, so the KL of the step looks smaller on these states than it is. The
    draw uses a separate generator.

    :param candidates: positions that the products may use (appendix C.1 of the paper uses 10% of them)
    :param fraction: share to take, in (0, 1]
    :param n_units: units of the whole batch
    :param seed: seed of the run and number of the update, so that a resumed run draws the same
    :return: sorted positions of the products' units, at least one, and of equally many others, or all if there are fewer
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(fraction * len(candidates)))
    chosen = rng.choice(candidates.numpy(), size=size, replace=False, shuffle=False)
    rest = np.setdiff1d(np.arange(n_units), chosen, assume_unique=True)
    others = rng.choice(rest, size=min(size, len(rest)), replace=False, shuffle=False)
    return th.from_numpy(np.sort(chosen)), th.from_numpy(np.sort(others))


def _env_major(positions: np.ndarray, size: int, n_envs: int) -> np.ndarray:
    """Convert positions of transitions counted environment by environment, as in SB3, to positions in the batch."""
    n_steps = size // n_envs
    return np.asarray(positions % n_steps * n_envs + positions // n_steps)

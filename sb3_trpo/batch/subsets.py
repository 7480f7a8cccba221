"""Parts of a batch: mini-batches, every k-th unit, the states of Fisher products."""

from collections.abc import Iterator

import numpy as np
import torch as th

from sb3_trpo.batch.batch import Batch


def minibatches(batch: Batch, batch_size: int, n_envs: int) -> Iterator[th.Tensor]:
    """
    Draw the mini-batches of one epoch, as ``RolloutBuffer.get`` draws them (NumPy's global generator).

    :param batch: the whole rollout, in time-major order
    :param batch_size: transitions in a mini-batch, unless one unit has more
    :param n_envs: number of environments
    :return: positions of their units, each of shape (u,)
    """
    order = np.random.permutation(batch.n_units)
    if batch.starts is None:
        order = _env_major(order, batch.n_units, n_envs)
    units = th.from_numpy(order)
    for part in batch.parts(batch_size, units):
        assert isinstance(part, th.Tensor)
        yield part


def every_kth(batch: Batch, k: int, n_envs: int) -> th.Tensor:
    """
    Take every k-th unit, transitions counted environment by environment, so that none is left out whatever k and ``n_envs``.

    :param batch: the whole rollout, in time-major order
    :param k: 1 for all of them
    :param n_envs: number of environments
    :return: positions, shape (ceil(U / k),)
    """
    # a custom rollout buffer may hold another number than n_steps * n_envs
    if k == 1 or batch.starts is not None or len(batch) % n_envs:
        return th.arange(0, batch.n_units, k)
    return th.from_numpy(_env_major(np.arange(0, len(batch), k), len(batch), n_envs))


def fisher_subsets(candidates: th.Tensor, fraction: float, n_units: int, seed: tuple[int, ...]) -> tuple[th.Tensor, th.Tensor]:
    """
    Draw the units of the Fisher products, and others that tell how long the solver's step is.

    The solver fits its step to the noise of its states: on these the step looks shorter, in KL, than it is. Drawn from a
    separate generator.

    :param candidates: positions that the products may use (appendix C.1 of the paper takes 10% of them)
    :param fraction: share to take, in (0, 1]
    :param n_units: units of the whole batch
    :param seed: seed of the run and number of the update, so that a resumed run draws the same
    :return: sorted positions of the products' units, at least one, and of as many others, if there are
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(fraction * len(candidates)))
    chosen = rng.choice(candidates.numpy(), size=size, replace=False, shuffle=False)
    rest = np.setdiff1d(np.arange(n_units), chosen, assume_unique=True)
    others = rng.choice(rest, size=min(size, len(rest)), replace=False, shuffle=False)
    return th.from_numpy(np.sort(chosen)), th.from_numpy(np.sort(others))


def _env_major(positions: np.ndarray, size: int, n_envs: int) -> np.ndarray:
    """Where the batch, which goes step by step, holds the transitions that SB3 numbers environment by environment."""
    n_steps = size // n_envs
    return np.asarray(positions % n_steps * n_envs + positions // n_steps)

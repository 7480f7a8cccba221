"""Parts of a batch: mini-batches, every k-th unit, and the units of Fisher products."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import torch as th

from sb3_trpo.batch.batch import edges_of
from sb3_trpo.batch.whole import Whole
from sb3_trpo.step.workers import Workers

Permutation: TypeAlias = Callable[[int], np.ndarray]
"""Maps n to a permutation of the numbers below n."""


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


class Minibatch(NamedTuple):
    """
    One mini-batch of all workers.

    :param units: positions of this worker's units, shape (u,)
    :param n_states: number of transitions in those of all workers
    """

    units: np.ndarray
    n_states: int


def minibatches(whole: Whole, batch_size: int, permutation: Permutation | None = None) -> Iterator[Minibatch]:
    """
    Draw the mini-batches of one epoch, as ``RolloutBuffer.get`` draws them (NumPy's global generator).

    :param whole: the units of all workers
    :param batch_size: transitions in a mini-batch of all workers, unless one unit has more
    :param permutation: permutes the first n numbers; None: ``np.random.permutation``
    :return: the mini-batches
    """
    order = (permutation or np.random.permutation)(whole.n_units)
    if whole.lengths is None:
        order = _env_major(order, whole.n_units, whole.n_envs)
        edges = list(range(0, len(order), batch_size))
    else:
        edges = edges_of(whole.lengths[order].tolist(), batch_size)
    for start, end in pairwise([*edges, len(order)]):
        units = order[start:end]
        yield Minibatch(whole.own(units), whole.n_states_of(units))


def shared_permutation(workers: Workers) -> Permutation | None:
    """
    Let all workers draw the permutations that the first one draws from NumPy's global generator.

    :param workers: the workers
    :return: this worker's function; None: ``np.random.permutation``
    """
    if workers.size == 1:
        return None
    state = workers.gather(np.random.get_state() if workers.rank == 0 else None)[0]
    if workers.rank == 0:
        return None
    generator = np.random.RandomState()
    generator.set_state(state)
    return generator.permutation


def every_kth(whole: Whole, k: int) -> np.ndarray:
    """
    Take every k-th unit.

    Single transitions are counted environment by environment, so that no environment is left out for any k and ``n_envs``.

    :param whole: the units of all workers
    :param k: distance between the units; 1 takes all
    :return: their numbers, shape (ceil(U / k),)
    """
    # a custom rollout buffer may not hold n_steps * n_envs transitions
    if k == 1 or whole.lengths is not None or whole.n_units % whole.n_envs:
        return np.arange(0, whole.n_units, k)
    return _env_major(np.arange(0, whole.n_units, k), whole.n_units, whole.n_envs)


def fisher_subsets(
    candidates: np.ndarray, fraction: float, n_units: int, seed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Draw the units of the Fisher products, and other units that measure the length of the solver's step.

    The solver fits its step to the noise of its states, so the KL of the step looks smaller on these states than it is. The
    draw uses a separate generator.

    :param candidates: numbers of the units that the products may use (appendix C.1 of the paper uses 10% of them)
    :param fraction: share to take, in (0, 1]
    :param n_units: units of all workers
    :param seed: seed of the run and number of the update, so that a resumed run draws the same
    :return: sorted numbers of the products' units, at least one, and of equally many others, or all if there are fewer
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(fraction * len(candidates)))
    chosen = rng.choice(candidates, size=size, replace=False, shuffle=False)
    rest = np.setdiff1d(np.arange(n_units), chosen, assume_unique=True)
    others = rng.choice(rest, size=min(size, len(rest)), replace=False, shuffle=False)
    return np.sort(chosen), np.sort(others)


def _env_major(positions: np.ndarray, size: int, n_envs: int) -> np.ndarray:
    """Convert positions of transitions counted environment by environment, as in SB3, to positions in the batch."""
    n_steps = size // n_envs
    return np.asarray(positions % n_steps * n_envs + positions // n_steps)

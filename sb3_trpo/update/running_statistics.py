"""Refreshes the running statistics of normalising layers, within the KL bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.actor.reached_parameters import watched_outputs
from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.report import Trial
from sb3_trpo.step.workers import ALONE, Workers

_STATES = 128
"""Smallest number of states in a chunk, if the rollout has as many; batch norm moves its averages once per chunk."""

_PROBED = 16
"""Number of units that tell which statistics move: any number above 1 does."""

_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Shares of the way to the new statistics, in the order in which they are tried."""


@dataclass(frozen=True)
class MovingStatistics:
    """
    The layers whose statistics move when the policy is trained.

    These are layers with buffers that change in training mode: batch norm and others with running averages, the normalisation
    of images until its statistics are fixed, and the power iteration of spectral norm. Layers that stay in evaluation mode (a
    frozen backbone) and constant buffers are none.

    :param layers: the layers
    :param move_actor: whether the action distribution depends on them
    """

    layers: Sequence[nn.Module]
    move_actor: bool

    @classmethod
    def of(cls, interface: PolicyInterface, batch: Batch, workers: Workers = ALONE) -> MovingStatistics:
        """
        Try with a few states which statistics move, and put them back.

        :param interface: interface to the policy, which is in evaluation mode afterwards
        :param batch: the whole rollout
        :param workers: the processes that share the statistics
        :return: the layers that move on any worker
        """
        candidates, some = _layers_with_buffers(interface.policy), batch.take(slice(0, _PROBED))
        if not candidates or workers.any(len(some) < 2):  # one state has no variance
            return cls([], False)
        before, actor = _buffers(candidates), watched_outputs(interface, some)
        old = [[buffer.clone() for buffer in buffers] for buffers in before]
        with _training(interface, candidates):
            interface.visit(some.states, some.actions)
        moved = [not all(map(th.equal, *pair)) for pair in zip(before, old, strict=True)]
        moves_actor = not all(map(_same, actor, watched_outputs(interface, some)))
        *counts, of_actor = workers.sum(th.tensor([*moved, moves_actor], dtype=th.float64)).tolist()
        layers = [layer for layer, count in zip(candidates, counts, strict=True) if count > 0.0]
        for buffers, values in zip(before, old, strict=True):
            _assign(buffers, values)
        return cls(layers, of_actor > 0.0)

    @property
    def gather_images(self) -> bool:
        """Tell whether one of the layers still gathers the statistics of the first images."""
        return any(isinstance(layer, ImageNormalization) for layer in self.layers)


def refresh_within_bound(
    interface: PolicyInterface,
    layers: Sequence[nn.Module],
    batch: Batch,
    evaluate: Callable[[float], Trial],
    max_kl: float,
    workers: Workers = ALONE,
) -> float | None:
    """
    Move the running statistics towards those of the rollout, as far as the bound on the KL allows.

    If the whole move would exceed the bound, a half of it is tried, then a quarter, and so on; in the end they stay as they
    are. So the KL between the policy before the update and the policy after it, statistics included, keeps the bound.

    :param interface: interface to the policy, in evaluation mode
    :param layers: the layers of :class:`MovingStatistics`, at least one
    :param batch: the whole rollout
    :param evaluate: maps δ to the surrogate and the KL at the present policy; it may stop early above δ
    :param max_kl: δ, nats
    :param workers: the processes that share the statistics
    :return: the KL(π_old‖π) of the whole update, nats; None if the statistics did not move
    """
    buffers = [buffer for of_layer in _buffers(layers) for buffer in of_layer]
    counters = {id(layer.n_seen) for layer in layers if isinstance(layer, ImageNormalization)}
    before = [buffer.clone() for buffer in buffers]
    refresh_running_statistics(interface, layers, batch)
    _merge(layers, before, len(batch), workers)
    after = [buffer.clone() for buffer in buffers]
    for share in _SHARES:
        for buffer, old, new in zip(buffers, before, after, strict=True):
            if share < 1.0 and id(buffer) in counters:  # statistics that have not arrived must not count in full later
                buffer.copy_(old)
            elif share < 1.0 and old.is_floating_point():
                buffer.copy_(old + share * (new - old))
        trial = evaluate(max_kl)
        if trial.complete and trial.kl <= max_kl:
            return trial.kl
    _assign(buffers, before)
    return None


def refresh_running_statistics(interface: PolicyInterface, layers: Sequence[nn.Module], batch: Batch) -> None:
    """
    Pass over the rollout once, in shuffled order, with only these layers in training mode.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other. Without this
    pass the statistics would never leave their initial values.

    :param interface: interface to the policy, in evaluation mode
    :param layers: the layers of :class:`MovingStatistics`
    :param batch: the whole rollout
    """
    # shuffled, because a running average forgets all but the last chunks
    order = th.from_numpy(np.random.default_rng(0).permutation(batch.n_units))
    with _training(interface, layers):
        for units in th.tensor_split(order, min(batch.n_units, max(1, len(batch) // _STATES))):
            chunk = batch.take(units)
            if len(chunk) > 1:  # one state has no variance
                interface.visit(chunk.states, chunk.actions)


def _merge(layers: Sequence[nn.Module], before: Sequence[th.Tensor], n_states: int, workers: Workers) -> None:
    """
    Merge the statistics of all workers.

    The moments of images are those of all images together. Running averages forget, so their mean over the states is taken.
    Counters, of which no mean makes sense, become those of the first worker.

    :param layers: the layers, after each worker has passed over its states
    :param before: their buffers before that, equal on all workers
    :param n_states: number of this worker's states
    :param workers: the workers
    """
    if workers.size == 1:
        return
    total, old = workers.total(float(n_states)), iter(before)
    for layer in layers:
        buffers = list(layer.buffers(recurse=False))
        previous = [next(old) for _ in buffers]
        if isinstance(layer, ImageNormalization):
            layer.merge(previous, workers)
            continue
        for buffer in buffers:
            if buffer.is_floating_point():
                buffer.copy_(workers.sum(buffer.double() * (n_states / total)))
            else:
                workers.broadcast([buffer])


def _layers_with_buffers(policy: ActorCriticPolicy) -> list[nn.Module]:
    """Find the layers with buffers that are in training mode when the policy is."""
    if next(policy.buffers(), None) is None:  # first, because setting the mode of every module takes longer than this
        return []
    policy.set_training_mode(True)  # through the policy: a layer that it keeps in evaluation mode stays so
    layers = [m for m in policy.modules() if m.training and any(True for _ in m.buffers(recurse=False))]
    policy.set_training_mode(False)
    return layers


def _buffers(layers: Sequence[nn.Module]) -> list[list[th.Tensor]]:
    return [list(layer.buffers(recurse=False)) for layer in layers]


def _assign(buffers: Sequence[th.Tensor], values: Sequence[th.Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def _same(a: th.Tensor, b: th.Tensor) -> bool:
    return th.equal(a.nan_to_num(), b.nan_to_num())


@contextmanager
def _training(interface: PolicyInterface, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Put only these layers in training mode within the context, without autograd."""
    for layer in layers:
        layer.training = True  # not recursively: it may contain dropout
    try:
        with th.no_grad():
            yield
    finally:
        interface.policy.set_training_mode(False)

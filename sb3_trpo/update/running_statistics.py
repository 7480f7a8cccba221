"""Refreshes the running statistics of normalising layers, within the KL bound."""

from collections.abc import Callable, Sequence

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.report import Trial
from sb3_trpo.step.workers import ALONE, Workers

_STATES = 128
"""Smallest number of states in a chunk, if the rollout has as many; batch norm moves its averages once per chunk."""

_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Shares of the way to the new statistics, in the order in which they are tried."""


def moving_layers(policy: ActorCriticPolicy) -> list[nn.Module]:
    """
    Find the layers whose statistics move when the policy is trained.

    These are layers with buffers that are in training mode then: batch norm and others with running averages, the
    normalisation of images until its statistics are fixed, and the power iteration of spectral norm. Layers that stay in
    evaluation mode (a frozen backbone) are none.

    :param policy: the policy; it is in evaluation mode afterwards
    :return: the layers
    """
    policy.set_training_mode(True)  # through the policy: a layer that it keeps in evaluation mode stays so
    layers = [m for m in policy.modules() if m.training and any(True for _ in m.buffers(recurse=False))]
    policy.set_training_mode(False)
    return layers


def gathers_images(layers: Sequence[nn.Module]) -> bool:
    """
    Tell whether one of the layers still gathers the statistics of the first images.

    :param layers: layers whose statistics move
    :return: whether one does
    """
    return any(isinstance(layer, ImageNormalization) for layer in layers)


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
    :param layers: the layers that :func:`moving_layers` found, at least one
    :param batch: the whole rollout
    :param evaluate: maps δ to the surrogate and the KL at the present policy; it may stop early above δ
    :param max_kl: δ, nats
    :param workers: the processes that share the statistics
    :return: the KL(π_old‖π) of the whole update, nats; None if the statistics did not move
    """
    buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    refresh_running_statistics(interface, layers, batch)
    workers.broadcast(buffers)
    after = [buffer.clone() for buffer in buffers]
    for share in _SHARES:
        for buffer, old, new in zip(buffers, before, after, strict=True):
            if share < 1.0 and old.is_floating_point():
                buffer.copy_(old + share * (new - old))
        trial = evaluate(max_kl)
        if trial.complete and trial.kl <= max_kl:
            return trial.kl
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)
    return None


def refresh_running_statistics(interface: PolicyInterface, layers: Sequence[nn.Module], batch: Batch) -> None:
    """
    Pass over the rollout once, in shuffled order, with only these layers in training mode.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other. Without this
    pass the statistics would never leave their initial values.

    :param interface: interface to the policy, in evaluation mode
    :param layers: the layers that :func:`moving_layers` found
    :param batch: the whole rollout
    """
    # shuffled, because a running average forgets all but the last chunks
    order = th.from_numpy(np.random.default_rng(0).permutation(batch.n_units))
    for layer in layers:
        layer.training = True  # not recursively: it may contain dropout
    try:
        with th.no_grad():
            for units in th.tensor_split(order, min(batch.n_units, max(1, len(batch) // _STATES))):
                chunk = batch.take(units)
                if len(chunk) > 1:  # one state has no variance
                    interface.visit(chunk.states, chunk.actions)
    finally:
        interface.policy.set_training_mode(False)

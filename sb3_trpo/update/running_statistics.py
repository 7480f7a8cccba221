"""Refreshes the running statistics of normalising layers after the step."""

import numpy as np
import torch as th

from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.interface import PolicyInterface

_STATES = 128
"""Smallest number of states in a chunk, if the rollout has as many; batch norm moves its averages once per chunk."""


def refresh_running_statistics(interface: PolicyInterface, batch: Batch) -> None:
    """
    Pass over the rollout once, in shuffled order, with only layers that have buffers in training mode: batch norm and others
    with running averages, the normalisation of images, and the power iteration of spectral norm.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other. Without this
    pass the statistics would never leave their initial values. Layers that stay in evaluation mode when the policy is trained
    (a frozen backbone) keep theirs. This pass moves the policy without regard to the trust region, the one exception to the
    KL bound. It leaves policies alone that have no such layers, or whose statistics are already fixed.

    :param interface: interface to the policy, in evaluation mode
    :param batch: the whole rollout
    """
    policy = interface.policy
    policy.set_training_mode(True)  # through the policy: a layer that it keeps in evaluation mode stays so
    layers = [m for m in policy.modules() if m.training and any(True for _ in m.buffers(recurse=False))]
    policy.set_training_mode(False)
    if not layers:
        return
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
        policy.set_training_mode(False)

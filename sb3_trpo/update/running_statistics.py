"""Refreshes the running statistics of normalising layers after the step."""

import numpy as np
import torch as th

from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.interface import PolicyInterface

_STATES = 128
"""Least states of a chunk, where the rollout has as many; an average of batch norm moves once towards each chunk."""


def refresh_running_statistics(interface: PolicyInterface, batch: Batch) -> None:
    """
    Pass over the rollout once, in mixed order, with only those layers in training mode that have buffers: batch norm and
    others with running averages, the normalisation of images, and the power iteration of spectral norm.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other; without
    this pass the statistics would never leave their initial values. Layers that stay in evaluation mode when the policy
    is trained (a frozen backbone) keep theirs. It moves the policy outside the trust region: the
    one exception to the KL bound. Policies without such layers, or whose statistics are fixed by now, are left alone.

    :param interface: of the policy, in evaluation mode
    :param batch: the whole rollout
    """
    policy = interface.policy
    policy.set_training_mode(True)  # asked of the policy: a layer that it keeps in evaluation mode stays as it is
    layers = [m for m in policy.modules() if m.training and any(True for _ in m.buffers(recurse=False))]
    policy.set_training_mode(False)
    if not layers:
        return
    # mixed: an average keeps the last chunks only, and a rollout's end is not the rollout
    order = th.from_numpy(np.random.default_rng(0).permutation(batch.n_units))
    for layer in layers:
        layer.training = True  # its own alone: it may contain dropout
    try:
        with th.no_grad():
            for positions in th.tensor_split(order, max(1, len(batch) // _STATES)):
                if len(positions) > 1:  # one state has no variance
                    chunk = batch.take(positions)
                    interface.visit(chunk.states, chunk.actions)
    finally:
        policy.set_training_mode(False)

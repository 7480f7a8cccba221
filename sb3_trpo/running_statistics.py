"""Running statistics of normalising layers, refreshed after the step."""

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm

from sb3_trpo.batch import Batch
from sb3_trpo.image_normalization import ImageNormalization


def refresh_running_statistics(policy: ActorCriticPolicy, batch: Batch, chunk_size: int) -> None:
    """
    One pass over the rollout in which only the normalising layers are in training mode: batch norm, the images' own, and
    the power iteration of spectral norm.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other; without
    this pass the statistics would never leave their initial values. Layers that stay in evaluation mode when the policy
    is trained (a frozen backbone) keep theirs. It moves the policy outside the trust region: the
    one exception to the KL bound. Policies without such layers, or whose statistics are fixed by now, are left alone.

    :param policy: the policy, in evaluation mode
    :param batch: the whole rollout
    :param chunk_size: most states in one pass
    """
    policy.set_training_mode(True)  # asked of the policy: a layer that it keeps in evaluation mode stays as it is
    layers = [m for m in policy.modules() if _gathers(m)]
    policy.set_training_mode(False)
    if not layers:
        return
    for layer in layers:
        layer.train()
    try:
        with th.no_grad():
            for chunk in batch.chunks(max(2, chunk_size)):
                if len(chunk) > 1:  # one state has no variance
                    policy.evaluate_actions(chunk.observations, chunk.actions)
    finally:
        for layer in layers:
            layer.eval()


def _gathers(module: nn.Module) -> bool:
    """Whether a pass would move statistics of this module."""
    if isinstance(module, _NormBase):
        return module.training and module.track_running_stats
    return module.training and isinstance(module, (ImageNormalization, _SpectralNorm))

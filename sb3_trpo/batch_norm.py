"""Running statistics of batch-norm layers, refreshed after the step."""

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.modules.batchnorm import _NormBase

from sb3_trpo.batch import Batch


def refresh_batch_norm(policy: ActorCriticPolicy, batch: Batch, chunk_size: int) -> None:
    """
    One pass over the rollout in which only the batch-norm layers are in training mode.

    The step itself runs in evaluation mode, so that KL(old‖old) is 0 and states do not influence each other; without
    this pass the statistics would never leave their initial values. Layers that stay in evaluation mode when the policy
    is trained (a frozen backbone) keep theirs. It moves the policy outside the trust region: the
    one exception to the KL bound. Policies without such layers are left alone.

    :param policy: the policy, in evaluation mode
    :param batch: the whole rollout
    :param chunk_size: most states in one pass
    """
    policy.set_training_mode(True)  # asked of the policy: a layer that it keeps in evaluation mode stays as it is
    layers = [m for m in policy.modules() if isinstance(m, _NormBase) and m.track_running_stats and m.training]
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

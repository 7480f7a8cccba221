"""The critic: mini-batch regression of the value function on the returns. It never moves a parameter of the actor."""

import math
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.update.critic_epochs import Epoch
from sb3_trpo.update.fused_adam import optimizer_steps


def critic_parameters(policy: ActorCriticPolicy, actor_parameters: Sequence[th.nn.Parameter]) -> list[th.nn.Parameter]:
    """
    Collect the trainable parameters on which the KL does not depend.

    :param policy: the policy
    :param actor_parameters: the parameters on which the KL depends
    :return: the others, in the policy's order
    """
    actor = {id(parameter) for parameter in actor_parameters}
    return [parameter for parameter in policy.parameters() if parameter.requires_grad and id(parameter) not in actor]


def fit_critic(
    policy: ActorCriticPolicy,
    parameters: Sequence[th.nn.Parameter],
    epoch: Epoch,
    n_epochs: int,
    max_grad_norm: float | None,
) -> list[float]:
    """
    Regress the values on the returns with the policy's optimizer.

    :param policy: the policy, in evaluation mode
    :param parameters: the critic's parameters; no other is moved
    :param epoch: one pass over the rollout; see :func:`~sb3_trpo.update.critic_epochs.make_epoch`
    :param n_epochs: number of passes
    :param max_grad_norm: largest norm of the critic's gradient; None for no clipping
    :return: mean squared error of each mini-batch, before its gradient step; one that is not finite causes no step
    """
    losses: list[float] = []
    if not parameters:
        return losses
    # the optimizer skips parameters without a gradient, weight decay and momentum included
    _drop_gradients(policy)
    with optimizer_steps(policy.optimizer, parameters) as take_step:
        for _ in range(n_epochs):
            for loss in epoch():
                losses.append(loss)
                if not math.isfinite(loss):  # of all workers, so all of them skip it
                    continue
                if max_grad_norm is not None:
                    th.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
                take_step()
    _drop_gradients(policy)
    return losses


def _drop_gradients(policy: ActorCriticPolicy) -> None:
    for parameter in policy.parameters():
        parameter.grad = None

"""The critic: mini-batch regression of the value function on the returns. It never moves a parameter of the actor."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.batch import Batch, keeps_sb3_layout, minibatches

Minibatch: TypeAlias = tuple[th.Tensor, th.Tensor]
"""Predicted values and returns, each of shape (b,)."""


@dataclass
class CriticReport:
    """
    One fit of the critic.

    :param losses: mean squared error of each mini-batch, before its gradient step
    :param skipped: mini-batches without a step, because their loss was not finite
    """

    losses: list[float] = field(default_factory=list)
    skipped: int = 0


def fit_critic(
    policy: ActorCriticPolicy,
    actor_parameters: Sequence[th.nn.Parameter],
    epoch: Callable[[], Iterator[Minibatch]],
    n_epochs: int,
    max_grad_norm: float | None,
) -> CriticReport:
    """
    Regress the values on the returns with the policy's optimizer.

    :param policy: the policy, in evaluation mode
    :param actor_parameters: what the KL reaches; none of it is moved
    :param epoch: starts one pass over the rollout; see :func:`value_epochs`
    :param n_epochs: passes
    :param max_grad_norm: largest norm of the critic's gradient; None for no clipping
    :return: the losses
    """
    report = CriticReport()
    actor = {id(parameter) for parameter in actor_parameters}
    parameters = [p for p in policy.parameters() if p.requires_grad and id(p) not in actor]
    if not parameters:
        return report
    # parameters without a gradient are skipped by the optimizer, weight decay and momentum included
    for parameter in policy.parameters():
        parameter.grad = None
    with _fused(policy.optimizer):
        for _ in range(n_epochs):
            for values, returns in epoch():
                loss = th.nn.functional.mse_loss(values, returns)
                report.losses.append(loss.item())
                if not math.isfinite(report.losses[-1]):
                    report.skipped += 1
                    continue
                for parameter in parameters:
                    parameter.grad = None
                th.autograd.backward(loss, inputs=parameters)
                if max_grad_norm is not None:
                    th.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
                policy.optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return report


def value_epochs(
    policy: ActorCriticPolicy,
    actor_parameters: Sequence[th.nn.Parameter],
    buffer: RolloutBuffer,
    batch: Batch,
    batch_size: int,
    chunk_size: int,
) -> Callable[[], Iterator[Minibatch]]:
    """
    How to go through the rollout once: SB3's mini-batch order, and features computed once where the fit cannot move them.

    :param policy: the policy
    :param actor_parameters: what the KL reaches
    :param buffer: the rollout buffer; one with its own ``get`` is asked for every mini-batch
    :param batch: the whole rollout
    :param batch_size: transitions in a mini-batch
    :param chunk_size: most states in one forward pass
    :return: a function that starts an epoch of mini-batches
    """
    if not keeps_sb3_layout(buffer):

        def ask_buffer() -> Iterator[Minibatch]:
            for samples in buffer.get(batch_size):
                yield policy.predict_values(samples.observations).flatten(), samples.returns.flatten()

        return ask_buffer

    if _features_are_fixed(policy, actor_parameters):
        with th.no_grad():
            features = th.cat(
                [
                    super(ActorCriticPolicy, policy).extract_features(chunk.observations, policy.vf_features_extractor)
                    for chunk in batch.chunks(chunk_size)
                ]
            )

        def predict(index: th.Tensor) -> th.Tensor:
            values: th.Tensor = policy.value_net(policy.mlp_extractor.forward_critic(features[index]))
            return values
    else:

        def predict(index: th.Tensor) -> th.Tensor:
            return policy.predict_values(batch.take(index).observations)

    def pick_minibatches() -> Iterator[Minibatch]:
        for index in minibatches(batch, batch_size, buffer.n_envs):
            yield predict(index).flatten(), batch.returns[index]

    return pick_minibatches


def _features_are_fixed(policy: ActorCriticPolicy, actor_parameters: Sequence[th.nn.Parameter]) -> bool:
    """Whether the policy predicts values as SB3's does, from features that the critic's fit cannot change."""
    cls = type(policy)
    own = cls.predict_values is ActorCriticPolicy.predict_values and "predict_values" not in vars(policy)
    actor = {id(parameter) for parameter in actor_parameters}
    extractor = policy.vf_features_extractor.parameters()
    return own and all(not p.requires_grad or id(p) in actor for p in extractor)


@contextmanager
def _fused(optimizer: th.optim.Optimizer) -> Iterator[None]:
    """
    Let Adam and AdamW update all parameters in one kernel.

    Only the flag of the parameter groups is set, and only meanwhile: the state that is saved stays SB3's.
    """
    groups = optimizer.param_groups
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW) or any(group["differentiable"] for group in groups):
        yield
        return
    saved = [(group, group["fused"], group["foreach"]) for group in groups]
    for group, *_ in saved:
        group.update(fused=True, foreach=False)
    try:
        yield
    finally:
        for group, fused, foreach in saved:
            group.update(fused=fused, foreach=foreach)

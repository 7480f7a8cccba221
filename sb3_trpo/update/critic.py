"""The critic: mini-batch regression of the value function on the returns. It never moves a parameter of the actor."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.actor.plain_policy import (
    convolves,
    critic_layers,
    encoder,
    in_blocks,
    make_layers,
    why_not_layers,
    why_not_plain,
)
from sb3_trpo.batch.batch import Batch, keeps_sb3_layout, minibatches
from sb3_trpo.update.fused_adam import optimizer_steps

Epoch: TypeAlias = Callable[[], Iterator[float]]
"""One pass over the rollout. Each item is the loss of a mini-batch, whose gradient the critic's parameters then hold."""


def critic_parameters(policy: ActorCriticPolicy, actor_parameters: Sequence[th.nn.Parameter]) -> list[th.nn.Parameter]:
    """
    :param policy: the policy
    :param actor_parameters: what the KL reaches
    :return: the trainable rest
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
    :param epoch: one pass over the rollout; see :func:`make_epoch`
    :param n_epochs: passes
    :param max_grad_norm: largest norm of the critic's gradient; None for no clipping
    :return: mean squared error of each mini-batch, before its gradient step; one that is not finite has no step
    """
    losses: list[float] = []
    if not parameters:
        return losses
    # parameters without a gradient are skipped by the optimizer, weight decay and momentum included
    _drop_gradients(policy)
    with optimizer_steps(policy.optimizer, parameters) as take_step:
        for _ in range(n_epochs):
            for loss in epoch():
                losses.append(loss)
                if not math.isfinite(loss):
                    continue
                if max_grad_norm is not None:
                    th.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
                take_step()
    _drop_gradients(policy)
    return losses


def make_epoch(
    policy: ActorCriticPolicy,
    parameters: Sequence[th.nn.Parameter],
    buffer: RolloutBuffer,
    batch: Batch,
    batch_size: int,
    chunk_size: int,
) -> Epoch:
    """
    The fastest exact way through the rollout: without autograd for a plain policy; on features that are computed once where
    the fit cannot change them; else on observations. Mini-batches are SB3's.

    :param policy: the policy
    :param parameters: the critic's parameters
    :param buffer: the rollout buffer; one with its own ``get`` is asked for every mini-batch
    :param batch: the whole rollout
    :param batch_size: transitions in a mini-batch
    :param chunk_size: most states in one forward pass
    :return: one pass over the rollout
    """
    if not keeps_sb3_layout(buffer):

        def own_minibatches() -> Iterator[float]:
            for samples in buffer.get(batch_size):
                yield _autograd_loss(policy.predict_values(samples.observations), samples.returns.flatten(), parameters)

        return own_minibatches
    by_hand = _epoch_by_hand(policy, parameters, batch, batch_size, buffer.n_envs) if parameters else None
    if by_hand is not None:
        return by_hand
    predict = _predictor(policy, parameters, batch, chunk_size)

    def sb3_minibatches() -> Iterator[float]:
        for rows in minibatches(batch, batch_size, buffer.n_envs):
            index = th.from_numpy(rows)
            yield _autograd_loss(predict(index), batch.returns[index], parameters)

    return sb3_minibatches


def _autograd_loss(values: th.Tensor, returns: th.Tensor, parameters: Sequence[th.nn.Parameter]) -> float:
    """Mean squared error of a mini-batch; its gradient goes to the parameters."""
    loss = th.nn.functional.mse_loss(values.flatten(), returns)
    for parameter in parameters:
        parameter.grad = None
    if loss.requires_grad:  # the values may depend on frozen parameters only
        th.autograd.backward(loss, inputs=list(parameters))
    return loss.item()


def _predictor(
    policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], batch: Batch, chunk_size: int
) -> Callable[[th.Tensor], th.Tensor]:
    """Positions in the batch -> values."""
    trained = {id(parameter) for parameter in parameters}
    own_values = type(policy).predict_values is ActorCriticPolicy.predict_values and "predict_values" not in vars(policy)
    if not own_values or any(id(parameter) in trained for parameter in policy.vf_features_extractor.parameters()):
        return lambda index: policy.predict_values(batch.observations_at(index))
    extract = super(ActorCriticPolicy, policy).extract_features
    features, done = th.empty(0), 0
    with th.no_grad():
        for chunk in batch.chunks(chunk_size):  # written to their place: joined at the end they would take twice the memory
            part = extract(chunk.observations, policy.vf_features_extractor)
            features = features if done else part.new_empty(len(batch), *part.shape[1:])
            features[done : done + len(part)] = part
            done += len(part)
    return lambda index: policy.value_net(policy.mlp_extractor.forward_critic(features[index]))


def _epoch_by_hand(
    policy: ActorCriticPolicy, parameters: Sequence[th.nn.Parameter], batch: Batch, batch_size: int, n_envs: int
) -> Epoch | None:
    """An epoch without autograd, if the policy is plain; what the fit cannot change is computed once for all epochs."""
    if policy.device.type != "cpu" or why_not_plain(policy):
        return None
    modules, trained = critic_layers(policy), {id(parameter) for parameter in parameters}
    own = [{id(parameter) for parameter in module.parameters()} for module in modules]
    first = next((i for i, ids in enumerate(own) if ids & trained), None)
    if first is None:
        return None
    if not any(own[:first]):  # a normalisation alone
        first = 0
    fixed, fitted = modules[:first], modules[first:]
    if (fixed and why_not_layers(fixed)) or why_not_layers(fitted):
        return None
    if fixed and convolves(fitted):  # what they read takes more memory than images
        return None
    layers = make_layers(policy, fitted)
    if not layers.differentiable or sorted(id(p) for p in layers.parameters) != sorted(trained):  # nor one that is used twice
        return None
    assert isinstance(batch.observations, th.Tensor)
    observations, encode, returns = batch.observations.numpy(), encoder(policy), batch.returns.numpy()
    if fixed:
        features, encode = in_blocks(make_layers(policy, fixed), encode, observations), _as_they_are
    elif isinstance(policy.observation_space, spaces.Box):  # one-hot, a rollout may be thousands of times as large
        features, encode = encode(observations), _as_they_are
    else:
        features = observations
    gradients = [th.empty(parameter.shape, dtype=th.float32) for parameter in layers.parameters]  # in C order, whatever theirs
    out = [gradient.numpy() for gradient in gradients]

    def epoch() -> Iterator[float]:
        for parameter, gradient in zip(layers.parameters, gradients, strict=True):
            parameter.grad = gradient
        for index in minibatches(batch, batch_size, n_envs):
            trace = layers.trace(encode(features.take(index, axis=0)))
            error = trace[-1] - returns.take(index)[:, None]
            layers.vjp(trace, error * np.float32(2.0 / len(error)), out)
            yield float(np.vdot(error, error)) / len(error)

    return epoch


def _as_they_are(features: np.ndarray) -> np.ndarray:
    return features


def _drop_gradients(policy: ActorCriticPolicy) -> None:
    for parameter in policy.parameters():
        parameter.grad = None

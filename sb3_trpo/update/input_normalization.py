"""
Coordinates of the parameters in which the first layers of actor and critic read standardised observations.

A layer W x + b reads observations x with mean m and standard deviation s. With z = (x - m) / s it is W' z + b', where
W' = W diag(s) and b' = b + W m. A step in W' and b' does not depend on the units of the observations, and the policy stays a
plain function of x: no wrapper, no layer and no second file hold the statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.batch.batch import Batch
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.report import Trial
from sb3_trpo.update.moments import BLOCK_ROWS, RunningMoments

_LEAST_STD = 1e-2
"""Smallest standard deviation that is divided by: an input that hardly moved may move later."""


class InputLayer(Protocol):
    """A layer W x + b, or that part of a recurrent one."""

    @property
    def weight(self) -> th.Tensor:
        """Return W, shape (n_out, k)."""

    @property
    def bias(self) -> th.Tensor:
        """Return b, shape (n_out,)."""


class _RecurrentInputs(NamedTuple):
    """The part of a recurrent layer that reads the inputs."""

    weight: th.Tensor
    bias: th.Tensor


class FirstLayers(NamedTuple):
    """
    The layers that read the observation.

    :param actor: first layer of the actor
    :param critic: first layer of the critic
    """

    actor: InputLayer
    critic: InputLayer


def first_layers(plain: PlainPolicy | Reason) -> FirstLayers | Reason:
    """
    Find the layers that read the observation.

    :param plain: the policy as a plain one, or the reason why it is not plain
    :return: the layers; otherwise the reason why their inputs cannot be standardised
    """
    if isinstance(plain, Reason):
        return plain
    policy = plain.policy
    if not isinstance(policy.observation_space, spaces.Box):
        return Reason(f"the observations are {type(policy.observation_space).__name__}")
    if type(policy.features_extractor) is not FlattenExtractor:
        return Reason(f"the features extractor is a {type(policy.features_extractor).__name__}")
    actor, critic = (_input_layer(name, layer) for name, layer in _reading(plain).items())
    for found in (actor, critic):
        if isinstance(found, Reason):
            return found
    assert not isinstance(actor, Reason)
    assert not isinstance(critic, Reason)
    if actor.weight is critic.weight:
        return Reason("actor and critic share their first layer")
    return FirstLayers(actor, critic)


def _reading(plain: PlainPolicy) -> dict[str, Any]:
    """Find the modules of actor and critic that read the observation."""
    policy = plain.policy
    if isinstance(plain, PlainRecurrentPolicy):
        return {"actor": policy.lstm_actor, "critic": plain.critic_rnn or policy.critic}
    actor = [*policy.mlp_extractor.policy_net, policy.action_net]
    critic = [*policy.mlp_extractor.value_net, policy.value_net]
    return {"actor": actor[0], "critic": critic[0]}


def _input_layer(name: str, module: Any) -> InputLayer | Reason:
    """Find weight and bias of a module that reads the observation."""
    layer: InputLayer
    if type(module) is nn.Linear and module.bias is not None:
        layer = module
    elif type(module) in (nn.LSTM, nn.GRU) and module.bias:
        layer = _RecurrentInputs(module.weight_ih_l0, module.bias_ih_l0)
    else:
        return Reason(f"the first layer of the {name} is a {type(module).__name__}")
    frozen = not (layer.weight.requires_grad and layer.bias.requires_grad)
    return Reason(f"the first layer of the {name} is frozen") if frozen else layer


@dataclass(frozen=True)
class StandardizedInputs:
    """
    The units of k observed numbers.

    :param mean: m, shape (k,), float64
    :param std: s, above 0, shape (k,), float64
    """

    mean: th.Tensor
    std: th.Tensor

    @classmethod
    def of(cls, moments: RunningMoments) -> "StandardizedInputs":
        """
        Read the units from the moments of the observations.

        :param moments: moments of k columns
        :return: the units
        """
        return cls(moments.mean, moments.std.clamp(min=_LEAST_STD))

    def standardize(self, batch: Batch) -> Batch:
        """
        Compute z for every state.

        :param batch: a batch whose observations are one tensor, shape (B, ...)
        :return: the batch with float32 observations of the same shape
        """
        observations = batch.states.observations
        assert isinstance(observations, th.Tensor)
        mean, std = (part.view(observations.shape[1:]) for part in (self.mean, self.std))
        standardized = th.empty(observations.shape)
        for x, z in zip(th.split(observations, BLOCK_ROWS), th.split(standardized, BLOCK_ROWS), strict=True):
            z.copy_((x.double() - mean) / std)
        return replace(batch, states=replace(batch.states, observations=standardized))

    def enter(self, layer: InputLayer) -> None:
        """
        Replace W and b by W' and b'.

        :param layer: a layer that reads x; it reads z afterwards
        """
        mean, std = self.mean.to(layer.weight.device), self.std.to(layer.weight.device)
        with th.no_grad():
            weight = layer.weight.double()
            layer.bias.copy_(layer.bias.double() + weight @ mean)
            layer.weight.copy_(weight * std)

    def leave(self, layer: InputLayer) -> None:
        """
        Replace W' and b' by W and b: the inverse of :meth:`enter`.

        :param layer: a layer that reads z; it reads x afterwards
        """
        mean, std = self.mean.to(layer.weight.device), self.std.to(layer.weight.device)
        with th.no_grad():
            weight = layer.weight.double() / std
            layer.bias.copy_(layer.bias.double() - weight @ mean)
            layer.weight.copy_(weight)

    @contextmanager
    def within(self, layer: InputLayer) -> Iterator[None]:
        """
        Let a layer read z within the context; before and after it reads x, and computes the same.

        :param layer: the layer
        """
        self.enter(layer)
        try:
            yield
        finally:
            self.leave(layer)


class Inputs(NamedTuple):
    """
    The inputs of one update.

    :param layers: the layers that read them
    :param units: their units
    :param new: whether this is the first rollout of layers with their initial weights
    """

    layers: FirstLayers
    units: StandardizedInputs
    new: bool


def begin_standardized(
    layers: FirstLayers, inputs: StandardizedInputs, evaluate: Callable[[float], Trial] | None, max_kl: float
) -> float | None:
    """
    Let untrained layers read z through the weights with which they have read x, so that no input drowns the others.

    The critic's values are arbitrary until it is fitted. The actor changes only within the bound.

    :param layers: the first layers, with their initial weights
    :param inputs: the units of the first rollout
    :param evaluate: maps δ to the surrogate and the KL at the present policy; None: leave the actor as it is
    :param max_kl: δ, nats
    :return: the KL(π_old‖π) of the change, nats; None if the actor did not change
    """
    inputs.leave(layers.critic)
    if evaluate is None:
        return None
    parameters = [layers.actor.weight, layers.actor.bias]
    before = flatten(parameters)
    inputs.leave(layers.actor)
    trial = evaluate(max_kl)
    if trial.complete and trial.kl <= max_kl:
        return trial.kl
    assign(parameters, before)
    return None


class Coordinates:
    """
    Maps between the parameters of a problem, in which some first layer reads x, and those in which it reads z.

    :param inputs: the units of the observations
    :param layer: the first layer
    :param parameters: the problem's parameters, P elements in all
    """

    def __init__(self, inputs: StandardizedInputs, layer: InputLayer, parameters: Sequence[th.Tensor]) -> None:
        dtype, device = layer.weight.dtype, layer.weight.device
        self._mean, self._std = inputs.mean.to(device, dtype), inputs.std.to(device, dtype)
        self._weight = _place(layer.weight, parameters)
        self._bias = _place(layer.bias, parameters)

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        """
        Compute the step in W and b, and the other parameters, of a step in W' and b'.

        :param step: shape (P,)
        :return: shape (P,)
        """
        step = step.clone()
        weight = step[self._weight].view(-1, len(self._std)).div_(self._std)
        step[self._bias].sub_(weight @ self._mean)
        return step

    def pull_back(self, gradient: th.Tensor) -> th.Tensor:
        """
        Compute the gradient with respect to W' and b', and the other parameters: the transpose of :meth:`to_parameters`.

        :param gradient: shape (P,)
        :return: shape (P,)
        """
        gradient = gradient.clone()
        weight = gradient[self._weight].view(-1, len(self._std))
        weight.sub_(th.outer(gradient[self._bias], self._mean)).div_(self._std)
        return gradient


def _place(tensor: th.Tensor, parameters: Sequence[th.Tensor]) -> slice:
    """Find a tensor in the flat vector of all."""
    start = 0
    for parameter in parameters:
        if parameter is tensor:
            return slice(start, start + tensor.numel())
        start += parameter.numel()
    raise ValueError("the first layer is not among the parameters")

"""Passes over a rollout for the critic's fit: on a custom buffer's mini-batches, by autograd, or by hand."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trpo.actor.packing import Sequences
from sb3_trpo.actor.plain_policy import Encode, Layers, PlainPolicy, Reason, convolves, in_blocks
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.actor.recurrent_network import RecurrentNetwork
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import keeps_sb3_layout
from sb3_trpo.batch.states import States
from sb3_trpo.batch.subsets import Minibatch, Permutation, minibatches
from sb3_trpo.batch.whole import Whole
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.flat import unflatten_like
from sb3_trpo.step.workers import ALONE, Workers
from sb3_trpo.update.target_normalization import TargetScale

Epoch: TypeAlias = Callable[[], Iterator[float]]
"""One pass over the rollout. It gives the loss of each mini-batch, and leaves its gradient in the critic's parameters."""


class FitData(NamedTuple):
    """
    The data that a pass reads.

    :param buffer: the rollout buffer
    :param batch: the whole rollout
    :param batch_size: number of transitions in a mini-batch
    :param chunk_size: largest number of states in one forward pass
    :param scale: the unit of the batch's targets, for a buffer that provides its own
    :param whole: the units of all workers; None: this worker has all
    :param permutation: permutes the units for the mini-batches of all workers; None: ``np.random.permutation``
    """

    buffer: RolloutBuffer
    batch: Batch
    batch_size: int
    chunk_size: int
    scale: TargetScale = TargetScale()
    whole: Whole | None = None
    permutation: Permutation | None = None

    def minibatches(self) -> Iterator[Minibatch]:
        """
        Draw the mini-batches of one pass.

        :return: the mini-batches
        """
        whole = self.whole or Whole.of(self.batch, self.buffer.n_envs)
        return minibatches(whole, self.batch_size, self.permutation)

    @property
    def own_batch_size(self) -> int:
        """Return the number of transitions of this worker in a mini-batch, on average."""
        if self.whole is None:
            return self.batch_size
        return max(1, self.batch_size * len(self.batch) // self.whole.n_states)


def make_epoch(
    interface: PolicyInterface,
    plain: PlainPolicy | Reason,
    parameters: Sequence[th.nn.Parameter],
    data: FitData,
    workers: Workers = ALONE,
) -> Epoch:
    """
    Choose the fastest exact pass over the rollout.

    A plain policy is differentiated without autograd. For others, features that the fit cannot change are computed once. The
    mini-batches are SB3's.

    :param interface: interface to the policy
    :param plain: the same policy as a plain one, or the reason why it is not plain
    :param parameters: the critic's parameters
    :param data: the rollout; a custom ``get`` of the buffer provides every mini-batch
    :param workers: the processes that share the fit
    :return: one pass over the rollout
    """
    if not keeps_sb3_layout(data.buffer):
        return partial(_custom_buffer_epoch, interface, parameters, data, workers)
    if interface.policy.device.type == "cpu" and not isinstance(plain, Reason):
        if isinstance(plain, PlainRecurrentPolicy) and plain.critic_rnn is not None and not plain.policy.shared_lstm:
            network = _sequence_network(plain, parameters)
            if not isinstance(network, Reason):
                return _SequenceEpoch(plain, network, data, workers)
            return _AutogradEpoch(interface, parameters, data, workers)
        split = _split_layers(plain, parameters)
        if not isinstance(split, Reason):
            return _HandEpoch(split.fitted, *_fixed_features(plain, split, data.batch), data, workers)
    return _AutogradEpoch(interface, parameters, data, workers)


def _custom_buffer_epoch(
    interface: PolicyInterface, parameters: Sequence[th.nn.Parameter], data: FitData, workers: Workers
) -> Iterator[float]:
    """Read the mini-batches of a custom rollout buffer, until no worker has another one."""
    parts = iter(data.buffer.get(data.own_batch_size))
    while workers.any((samples := next(parts, None)) is not None):
        errors = th.empty(0, device=interface.policy.device)
        if samples is not None:
            values = interface.values(States(**interface.state_fields(samples)))
            errors = _squared_errors(values, data.scale.normalized(samples.returns.flatten()), None)
        yield _differentiate_loss(errors, workers.total(len(errors)), parameters, workers)


class _AutogradEpoch:
    """Differentiates the critic by autograd, on features that are computed once if the fit cannot change them."""

    def __init__(
        self, interface: PolicyInterface, parameters: Sequence[th.nn.Parameter], data: FitData, workers: Workers
    ) -> None:
        self._interface = interface
        self._parameters = parameters
        self._data = data
        self._workers = workers
        trained = {id(parameter) for parameter in parameters}
        extractor = interface.policy.vf_features_extractor if interface.has_separable_values() else None
        fixed = extractor is not None and not any(id(parameter) in trained for parameter in extractor.parameters())
        self._features = replace(data.batch.states, observations=self._compute_features()) if fixed else None

    def __call__(self) -> Iterator[float]:
        batch = self._data.batch
        for positions, n_states in self._data.minibatches():
            units = th.from_numpy(positions)
            weights, total = None, float(n_states)
            if batch.weights is not None:
                weights = batch.weights[batch.states.rows_of(units)]
                total = self._workers.total(weights.double().sum().item())
            yield _differentiate_loss(self._errors(units, weights), total, self._parameters, self._workers)

    def _errors(self, units: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
        """Compute the weighted squared errors of some units."""
        batch = self._data.batch
        if not len(units):  # a network may refuse an empty batch
            return batch.returns[:0]
        if self._features is None:
            values = self._interface.values(batch.states_at(units))
        else:
            values = self._interface.values_from_features(self._features.take(units, batch.device))
        return _squared_errors(values, batch.returns[batch.states.rows_of(units)], weights)

    def _compute_features(self) -> th.Tensor:
        batch = self._data.batch
        features, done = th.empty(0), 0
        with th.no_grad():
            for chunk in batch.chunks(self._data.chunk_size):
                part = self._interface.value_features(chunk.states)
                # written in place: concatenating them at the end would take twice the memory
                features = features if done else part.new_empty(len(batch), *part.shape[1:])
                features[done : done + len(part)] = part
                done += len(part)
        return features


def _squared_errors(values: th.Tensor, returns: th.Tensor, weights: th.Tensor | None) -> th.Tensor:
    errors = (values.flatten() - returns).square()
    return errors if weights is None else weights * errors


def _differentiate_loss(errors: th.Tensor, total: float, parameters: Sequence[th.nn.Parameter], workers: Workers) -> float:
    """
    Divide the squared errors of a mini-batch by the total weight of all workers' transitions in it.

    :param errors: weighted squared errors of this worker's transitions, shape (b,)
    :param total: total weight, over all workers
    :param parameters: the critic's parameters, which receive the gradient
    :param workers: the processes that share the fit
    :return: the mean squared error over all workers; NaN if there is no weight
    """
    if total == 0.0:
        return math.nan
    loss = errors.sum() / total
    for parameter in parameters:
        parameter.grad = None
    if loss.requires_grad:  # the values may depend on frozen parameters only
        th.autograd.backward(loss, inputs=list(parameters))
    if workers.size == 1:
        return loss.item()
    return _summed_gradient(loss, parameters, workers)


def _summed_gradient(loss: th.Tensor, parameters: Sequence[th.nn.Parameter], workers: Workers) -> float:
    """Add up loss and gradient over the workers, at once; routed networks may leave out parameters on some of them."""
    gradients = [parameter.grad for parameter in parameters]
    parts = [p.new_zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)]
    present = loss.new_tensor([float(gradient is not None) for gradient in gradients])
    summed = workers.sum(th.cat([*parts, present, loss.detach().view(1)]))
    flat, flags, total_loss = summed.tensor_split([len(summed) - len(present) - 1, len(summed) - 1])
    for parameter, part, flag in zip(parameters, unflatten_like(parameters, flat), flags.tolist(), strict=True):
        parameter.grad = part if flag > 0.0 else None
    return total_loss.item()


class _SplitLayers(NamedTuple):
    """
    The critic of a plain policy in two parts.

    :param fixed: layers that the fit does not change; None: there are none
    :param fitted: the other layers, whose parameters are fitted
    """

    fixed: Layers | None
    fitted: Layers


def _split_layers(plain: PlainPolicy, parameters: Sequence[th.nn.Parameter]) -> _SplitLayers | Reason:
    """Divide the critic's layers before the first one that the fit changes."""
    modules, trained = plain.critic_modules, {id(parameter) for parameter in parameters}
    of_modules = [{id(parameter) for parameter in module.parameters()} for module in modules]
    first = next((i for i, ids in enumerate(of_modules) if ids & trained), None)
    if first is None:
        return Reason("no layer of the critic is trained")
    if not any(of_modules[:first]):  # only a normalisation
        first = 0
    fixed, fitted = plain.layers(modules[:first]) if first else None, plain.layers(modules[first:])
    for layers in (fixed, fitted):
        if isinstance(layers, Reason):
            return layers
    assert not isinstance(fixed, Reason)
    assert not isinstance(fitted, Reason)
    if fixed and convolves(modules[first:]):
        return Reason("the fitted layers read images of features, which take more memory than the images")
    if not fitted.differentiable:
        return Reason("the slope of an activation is not known")
    if sorted(id(parameter) for parameter in fitted.parameters) != sorted(trained):
        return Reason("some of the fitted parameters are frozen, used twice, or not the critic's alone")
    return _SplitLayers(fixed, fitted)


class _HandEpoch:
    """Differentiates the critic of a plain policy without autograd; fixed layers are evaluated once for all epochs."""

    def __init__(self, layers: Layers, features: np.ndarray, encode: Encode, data: FitData, workers: Workers) -> None:
        batch = data.batch
        self._layers = layers
        self._features, self._encode = features, encode
        self._data = data
        self._workers = workers
        self._returns = batch.returns.numpy()
        self._weights = None if batch.weights is None else batch.weights.numpy()
        # gradient and loss in one vector, so that workers add them up at once; in C order, whatever the parameters' layout
        self._vector = th.empty(sum(parameter.numel() for parameter in self._layers.parameters) + 1, dtype=th.float32)
        self._gradients = unflatten_like(self._layers.parameters, self._vector[:-1])
        self._out = [gradient.numpy() for gradient in self._gradients]

    def __call__(self) -> Iterator[float]:
        for parameter, gradient in zip(self._layers.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        yield from map(self._differentiate_loss, self._data.minibatches())

    def _inputs(self, units: np.ndarray, rows: np.ndarray) -> Any:
        """Select the input of the fitted layers for a mini-batch."""
        return self._encode(self._features.take(rows, axis=0))

    def _differentiate_loss(self, minibatch: Minibatch) -> float:
        """Compute the same as :func:`_differentiate_loss`, by hand."""
        states, units = self._data.batch.states, minibatch.units
        rows = units if states.unit_starts is None else _rows_of(states, units)
        weights, total = None, float(minibatch.n_states)
        if self._weights is not None:
            weights = self._weights.take(rows)[:, None]
            total = self._workers.total(float(weights.sum(dtype=np.float64)))
        if total == 0.0:
            return math.nan
        loss = self._differentiate(units, rows, weights, total)
        if self._workers.size == 1:
            return loss
        self._vector[-1] = loss
        self._vector.copy_(self._workers.sum(self._vector))
        return self._vector[-1].item()

    def _differentiate(self, units: np.ndarray, rows: np.ndarray, weights: np.ndarray | None, total: float) -> float:
        """Write this worker's part of the gradient, and return its part of the loss."""
        if not len(rows):
            self._vector.zero_()
            return 0.0
        trace = self._layers.trace(self._inputs(units, rows))
        error = trace[-1] - self._returns.take(rows)[:, None]
        weighted = error if weights is None else error * weights
        self._layers.vjp(trace, weighted * np.float32(2.0 / total), self._out)
        return float(np.vdot(weighted, error)) / total


class _SequenceEpoch(_HandEpoch):
    """Differentiates a critic with memory without autograd, on mini-batches of whole windows."""

    def __init__(self, plain: PlainRecurrentPolicy, network: RecurrentNetwork, data: FitData, workers: Workers) -> None:
        self._sequences = plain.sequences(data.batch.states, of_critic=True)
        super().__init__(network, self._sequences.inputs, _as_they_are, data, workers)

    def _inputs(self, units: np.ndarray, rows: np.ndarray) -> Sequences:
        inputs, lengths, memory = self._sequences
        return Sequences(inputs.take(rows, axis=0), lengths[units], tuple(part[units] for part in memory))


def _sequence_network(plain: PlainRecurrentPolicy, parameters: Sequence[th.nn.Parameter]) -> RecurrentNetwork | Reason:
    """Find the network of a critic with memory of its own, if the fit trains exactly that."""
    network = plain.critic
    if isinstance(network, Reason):
        return network
    assert isinstance(network, RecurrentNetwork)
    if not network.differentiable:
        return Reason("the slope of an activation is not known")
    if sorted(map(id, network.parameters)) != sorted(map(id, parameters)):
        return Reason("some of the fitted parameters are frozen, used twice, or not the critic's alone")
    return network


def _fixed_features(plain: PlainPolicy, split: _SplitLayers, batch: Batch) -> tuple[np.ndarray, Encode]:
    """Compute what the fitted layers read, and how it is still to be encoded."""
    assert isinstance(batch.states.observations, th.Tensor)
    observations: np.ndarray = batch.states.observations.numpy()
    features, encode = observations, plain.encode
    if isinstance(plain, PlainRecurrentPolicy) and plain.critic_rnn is not None:  # the actor's, which the fit leaves alone
        assert isinstance(plain.critic, RecurrentNetwork)
        features, encode = plain.critic.hidden(plain.sequences(batch.states, of_critic=True))[0], _as_they_are
    if split.fixed is not None:
        return in_blocks(split.fixed, encode, features), _as_they_are
    if isinstance(plain.policy.observation_space, spaces.Box):
        # other spaces are encoded in parts: a one-hot rollout may be thousands of times as large
        return encode(features), _as_they_are
    return features, encode


def _rows_of(states: States, units: np.ndarray) -> np.ndarray:
    rows = states.rows_of(th.from_numpy(units))
    assert isinstance(rows, th.Tensor)
    return rows.numpy()


def _as_they_are(features: np.ndarray) -> np.ndarray:
    return features

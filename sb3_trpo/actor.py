"""Acting: a read-only copy of a plain MLP policy in NumPy, and the policy itself for everything else."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

Array: TypeAlias = np.ndarray

_METHODS = {
    name: getattr(ActorCriticPolicy, name)
    for name in (
        "forward",
        "extract_features",
        "get_distribution",
        "evaluate_actions",
        "predict_values",
        "obs_to_tensor",
        "_get_action_dist_from_latent",
    )
}
"""SB3's methods as imported: a class that was patched later must be asked itself."""


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _elu(module: nn.ELU) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0.0, x, module.alpha * np.expm1(np.minimum(x, 0.0)))


def _leaky_relu(module: nn.LeakyReLU) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0.0, x, module.negative_slope * x)


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, np.float32(0.0)))


_ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Callable[[Array], Array]]] = {
    nn.Tanh: lambda _: np.tanh,
    nn.ReLU: lambda _: lambda x: np.maximum(x, 0.0),
    nn.Sigmoid: lambda _: _sigmoid,
    nn.SiLU: lambda _: lambda x: x * _sigmoid(x),
    nn.Mish: lambda _: lambda x: x * np.tanh(_softplus(x)),
    nn.Softsign: lambda _: lambda x: x / (1.0 + np.abs(x)),
    nn.Identity: lambda _: lambda x: x,
    nn.ELU: _elu,  # type: ignore[dict-item]
    nn.LeakyReLU: _leaky_relu,  # type: ignore[dict-item]
}


def why_not_numpy(policy: ActorCriticPolicy) -> str | None:
    """
    Tell whether :class:`NumpyActor` acts exactly as this policy would.

    :param policy: any policy
    :return: None if it does; otherwise the first thing that speaks against it
    """
    if type(policy) is not ActorCriticPolicy:
        return f"the policy is a {type(policy).__name__}"
    if policy.normalize_images and is_image_space(policy.observation_space):
        return "the observations are images"
    if type(policy.action_dist) not in _NOISE:
        return f"the actions are drawn by a {type(policy.action_dist).__name__}"
    return _foreign_network(policy) or _altered_behaviour(policy)


def _foreign_network(policy: ActorCriticPolicy) -> str | None:
    """The first part of the actor that is not a float32 layer of SB3's own MLP."""
    for extractor in (policy.features_extractor, policy.pi_features_extractor):
        if type(extractor) is not FlattenExtractor:
            return f"the features extractor is a {type(extractor).__name__}"
    if type(policy.mlp_extractor) is not MlpExtractor:
        return f"the network is a {type(policy.mlp_extractor).__name__}"
    for layer in [*policy.mlp_extractor.policy_net, policy.action_net]:
        if type(layer) is not nn.Linear and type(layer) not in _ACTIVATIONS:
            return f"the network has a {type(layer).__name__}"
        if getattr(layer, "bias", layer) is None:
            return "a layer has no bias"
    if any((type(layer) is nn.Linear) is (i % 2 == 1) for i, layer in enumerate(policy.mlp_extractor.policy_net)):
        return "the network does not alternate linear layers and activations"
    if len(policy.mlp_extractor.policy_net) % 2 == 1:
        return "the network does not end with an activation"
    if any(parameter.dtype != th.float32 for parameter in policy.parameters()):
        return "the parameters are not float32"
    return None


def _altered_behaviour(policy: ActorCriticPolicy) -> str | None:
    """The first sign that calling the policy does more than its class says."""
    if any(getattr(ActorCriticPolicy, name) is not method for name, method in _METHODS.items()):
        return "a method of ActorCriticPolicy is patched"
    for module in policy.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"the {type(module).__name__} has hooks"
        if any(callable(value) and hasattr(type(module), name) for name, value in vars(module).items()):
            return f"a method of the {type(module).__name__} is patched"
    return None


class NumpyActor:
    """
    Draws actions from a plain MLP policy without torch's overhead, for one rollout.

    The parameters are read, never written. On the CPU they are views of the policy's own; elsewhere copies. Both are
    renewed when the policy's change. The noise of the whole rollout is drawn at once, from torch's global generator.

    :param policy: a policy that :func:`why_not_numpy` accepts
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    """

    def __init__(self, policy: ActorCriticPolicy, n_steps: int, n_envs: int) -> None:
        self._distribution = policy.action_dist
        self._shape = policy.action_space.shape or ()
        layers = policy.mlp_extractor.policy_net
        head = policy.action_net
        assert isinstance(head, nn.Linear)
        self._linear = [layer for layer in layers if isinstance(layer, nn.Linear)] + [head]
        self._activations = [_ACTIVATIONS[type(layer)](layer) for layer in layers if type(layer) in _ACTIVATIONS]
        # where the parameters are kept, so that a replaced one is found as well
        self._places = [(layer._parameters, name) for layer in self._linear for name in ("weight", "bias")]
        if type(policy.action_dist) is DiagGaussianDistribution:
            self._places.append((policy._parameters, "log_std"))
        self._encode = _encoder(policy.observation_space)
        self._choose = _CHOOSERS[type(policy.action_dist)](policy)
        # distribution parameters of every step, for the log-probabilities
        shape = (n_steps, n_envs, head.out_features)
        self._outputs = np.empty(shape, dtype=np.float32)
        self._log_stds = np.empty((n_steps, 1, shape[2]), dtype=np.float32)
        self._noise = _NOISE[type(policy.action_dist)](shape).numpy()
        self._read()

    def act(self, observations: Array, step: int) -> Array:
        """
        Draw the actions of one step.

        :param observations: shape (n_envs, ...)
        :param step: index of the step in the rollout
        :return: shape (n_envs, ...), as the policy's ``forward`` returns them
        """
        if self._version != self._current_version():
            self._read()
        x = self._encode(observations)
        for weight, bias, activation in self._hidden:
            x = activation(x @ weight + bias)
        weight, bias = self._head
        self._outputs[step] = output = x @ weight + bias
        noise = self._noise[step]
        if self._log_std is not None:
            self._log_stds[step] = self._log_std
            noise = noise * np.exp(self._log_std)
        return self._choose(output + noise).reshape(-1, *self._shape)

    def log_probs(self, actions: th.Tensor) -> th.Tensor:
        """
        Log-probabilities of the rollout's actions under the distributions that drew them.

        :param actions: shape (B, d); (B,) for one discrete action; B = n_steps * n_envs
        :return: shape (B,), nats
        """
        n_steps, n_envs, size = self._outputs.shape
        outputs = th.from_numpy(self._outputs).view(-1, size)
        if self._log_std is None:
            return self._distribution.proba_distribution(outputs).log_prob(actions)
        log_std = th.from_numpy(self._log_stds).expand(n_steps, n_envs, size).reshape(-1, size)
        return self._distribution.proba_distribution(outputs, log_std).log_prob(actions)

    def _read(self) -> None:
        self._version = self._current_version()
        arrays = [place[name].detach().cpu().numpy() for place, name in self._places]  # type: ignore[union-attr]
        layers = [(arrays[2 * i].T, arrays[2 * i + 1]) for i in range(len(self._linear))]
        self._hidden = [(*layer, activation) for layer, activation in zip(layers[:-1], self._activations, strict=True)]
        self._head = layers[-1]
        self._log_std = arrays[-1] if len(arrays) > 2 * len(self._linear) else None

    def _current_version(self) -> list[tuple[int, int]]:
        return [(place[name].data_ptr(), place[name]._version) for place, name in self._places]  # type: ignore[union-attr]


def _encoder(space: spaces.Space[Any]) -> Callable[[Array], Array]:
    """What SB3's preprocessing and flattening do: numbers as float32, discrete ones one-hot; shape (n_envs, features)."""
    if isinstance(space, spaces.Discrete):
        one_hot = np.eye(int(space.n), dtype=np.float32)
        return lambda obs: one_hot[obs.reshape(-1)]
    if isinstance(space, spaces.MultiDiscrete):
        one_hots = [np.eye(int(n), dtype=np.float32) for n in space.nvec]
        return lambda obs: np.concatenate([table[column] for table, column in zip(one_hots, obs.T, strict=True)], axis=1)
    return lambda obs: obs.reshape(len(obs), -1).astype(np.float32, copy=False)


# An action is a fixed function of the network's output plus noise: Gaussian noise, times the standard deviation, for
# Box; Gumbel noise and the largest for discrete actions; logistic noise and the sign for binary ones.
_NOISE: dict[type, Callable[[tuple[int, ...]], th.Tensor]] = {
    DiagGaussianDistribution: lambda shape: th.randn(shape),
    CategoricalDistribution: lambda shape: -th.empty(shape).exponential_().log(),
    MultiCategoricalDistribution: lambda shape: -th.empty(shape).exponential_().log(),
    BernoulliDistribution: lambda shape: th.rand(shape).logit(),
}


def _largest_of_each(policy: ActorCriticPolicy) -> Callable[[Array], Array]:
    assert isinstance(policy.action_dist, MultiCategoricalDistribution)
    splits = np.cumsum(policy.action_dist.action_dims)[:-1]
    return lambda x: np.stack([part.argmax(axis=1) for part in np.split(x, splits, axis=1)], axis=1)


_CHOOSERS: dict[type, Callable[[ActorCriticPolicy], Callable[[Array], Array]]] = {
    DiagGaussianDistribution: lambda _: lambda x: x,
    CategoricalDistribution: lambda _: lambda x: x.argmax(axis=1),
    MultiCategoricalDistribution: _largest_of_each,
    BernoulliDistribution: lambda _: lambda x: (x > 0.0).astype(np.float32),
}

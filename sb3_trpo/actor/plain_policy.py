"""
Recognises policies that compute exactly what SB3's MLP or CNN policy does, and can therefore be evaluated and differentiated
by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import distributions, policies, preprocessing
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor, NatureCNN
from torch import nn
from torch.distributions import Bernoulli, Beta, Categorical, Normal
from torch.nn import functional

from sb3_trpo.actor.cnn import Cnn, why_not_cnn
from sb3_trpo.actor.mlp import Mlp, why_not_mlp
from sb3_trpo.batch.states import States
from sb3_trpo.checks import described
from sb3_trpo.distributions.beta import BetaDistribution
from sb3_trpo.distributions.clipped_gaussian import GAUSSIANS
from sb3_trpo.originals import altered_method, hooks_of, is_original, watched_globally
from sb3_trpo.policies.aliases import CnnPolicy, PaperCnnPolicy
from sb3_trpo.policies.beta import BetaCnnPolicy, BetaMlpPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.policies.maskable import MaskableCnnPolicy, MaskableMlpPolicy


class Layers(Protocol):
    """A network with Jacobian products, on NumPy arrays."""

    block_rows: int
    """Number of rows that are processed at a time."""

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return the parameters, in order."""

    @property
    def n_out(self) -> int:
        """Return the number of output features."""

    @property
    def differentiable(self) -> bool:
        """Tell whether :meth:`jvp` and :meth:`vjp` can be computed."""

    def refresh(self) -> None:
        """Read parameters again that were replaced, or that changed on another device."""

    def __call__(self, x: Any, /) -> np.ndarray:
        """
        Evaluate the network.

        :param x: encoded observations of B states
        :return: shape (B, n_out)
        """

    def trace(self, x: Any, /) -> list[Any]:
        """
        Evaluate the network, and keep what its derivatives need.

        :param x: encoded observations of B states
        :return: any values, and at the end the output, shape (B, n_out)
        """

    def jvp(self, trace: list[Any], tangents: Sequence[np.ndarray], /) -> np.ndarray:
        """
        Compute J v, the change of the output with the parameters.

        :param trace: result of :meth:`trace`
        :param tangents: v, shaped like :attr:`parameters`
        :return: shape (B, n_out)
        """

    def vjp(self, trace: list[Any], cotangent: np.ndarray, out: Sequence[np.ndarray], /) -> object:
        """
        Compute Jᵀu, the gradient of Σ u · output with respect to the parameters.

        :param trace: result of :meth:`trace`
        :param cotangent: u, shape (B, n_out)
        :param out: arrays to write to, shaped like :attr:`parameters`
        """


Encode: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Maps observations of shape (B, ...) to the input of the first layer."""


class Reason(str):
    """The reason, in words, why something cannot be done by hand."""


class HookReason(Reason):
    """
    The reason that somebody's hooks observe a policy which could otherwise be computed by hand.

    :param text: the reason, in words
    :param where: name of the module or parameter in the policy
    :param hooks: the hooks
    """

    hooks: str
    """The functions that are called, and where, in words."""

    def __new__(cls, text: str, where: str, hooks: Iterable[object]) -> HookReason:
        """Make the reason."""
        reason = super().__new__(cls, text)
        names = dict.fromkeys(_name_of(hook) for hook in hooks)
        reason.hooks = f"{' and '.join(names)} at `{where}`"
        return reason


def _name_of(hook: object) -> str:
    """Name a function with its module; a partial one by the function that it calls."""
    hook = getattr(hook, "func", hook)
    name = getattr(hook, "__qualname__", type(hook).__qualname__).replace(".<locals>", "")
    return f"`{name}` of {getattr(hook, '__module__', None) or type(hook).__module__}"


E = TypeVar("E", bound=nn.Module)

_EXTRACTORS: dict[type[nn.Module], Callable[[Any], list[nn.Module]]] = {}


def register_extractor(extractor_class: type[E], layers: Callable[[E], list[nn.Module]]) -> None:
    """
    Let policies with a features extractor of this class act and learn without autograd.

    The extractor must compute exactly what its layers compute in sequence: linear layers and activations for vectors;
    convolutions, activations, one ``nn.Flatten`` and linear layers for images. Subclasses are not included. A new entry
    replaces an earlier one for the same class.

    :param extractor_class: class of the features extractor
    :param layers: maps an extractor to its layers, in order; to none if it only flattens
    :raises TypeError: if ``extractor_class`` is not a class of modules, or ``layers`` cannot be called
    """
    if not (isinstance(extractor_class, type) and issubclass(extractor_class, nn.Module)):
        raise TypeError(f"`extractor_class` must be a subclass of torch.nn.Module, not {described(extractor_class)}")
    if not callable(layers):
        raise TypeError(f"`layers` must be a function of the extractor, not {described(layers)}")
    _EXTRACTORS[extractor_class] = layers


register_extractor(FlattenExtractor, lambda extractor: [])
register_extractor(NatureCNN, lambda extractor: [*extractor.cnn, *extractor.linear])
register_extractor(NormalizedCNN, lambda extractor: [extractor.normalization, *extractor.cnn, *extractor.linear])
register_extractor(PaperCNN, lambda extractor: [extractor.normalization, *extractor.cnn, *extractor.linear])

_PARTS: dict[type[nn.Module], dict[str, type[nn.Module]]] = {
    FlattenExtractor: {"flatten": nn.Flatten},
    NatureCNN: {"cnn": nn.Sequential, "linear": nn.Sequential},
    **{
        extractor: {"cnn": nn.Sequential, "linear": nn.Sequential, "normalization": ImageNormalization}
        for extractor in (NormalizedCNN, PaperCNN)
    },
}
"""The parts of the extractors of SB3 and of this package, by name."""

_FUNCTIONS: Sequence[tuple[Any, str]] = (
    (policies, "preprocess_obs"),
    (preprocessing, "is_image_space"),
    (distributions, "sum_independent_dims"),
    *((functional, name) for name in ("linear", "conv2d", "relu", "elu", "leaky_relu", "silu", "mish", "softsign")),
    *((th, name) for name in ("tanh", "sigmoid")),
)
"""The functions that methods of policies, layers and distributions call, by the modules in which these find them."""


_DISTRIBUTIONS = (
    *GAUSSIANS,
    CategoricalDistribution,
    MultiCategoricalDistribution,
    BernoulliDistribution,
    BetaDistribution,
)
"""Distributions whose parameters are the network's output, except for the normalisation of logits and the std."""


@dataclass(frozen=True)
class PlainPolicy:
    """
    A policy that computes exactly what its layers compute: features, then two separate MLPs.

    Its parts describe the policy at the time of creation. Make a new one whenever a callback may have changed the policy.

    :param policy: the policy
    """

    policy: ActorCriticPolicy
    classes: ClassVar[tuple[type[ActorCriticPolicy], ...]] = (
        ActorCriticPolicy,
        ActorCriticCnnPolicy,
        CnnPolicy,
        PaperCnnPolicy,
        BetaMlpPolicy,
        BetaCnnPolicy,
        MaskableMlpPolicy,
        MaskableCnnPolicy,
    )
    """The classes that compute this; subclasses may compute something else."""

    @classmethod
    def of(cls, policy: ActorCriticPolicy) -> PlainPolicy | Reason:
        """
        Recognise a plain policy.

        :param policy: any policy
        :return: the policy as a plain one; otherwise the first reason why it is not plain
        """
        reason = (
            _unknown_class(policy, cls.classes)
            or _unknown_extractor(policy)
            or _unknown_network(policy)
            or _altered_behaviour(policy)
            or _observed(policy)
            or _altered_std(policy)
        )
        if reason is None:
            return cls(policy)
        return reason if isinstance(reason, Reason) else Reason(reason)

    @cached_property
    def actor(self) -> Layers | Reason:
        """Return the layers from the encoded observation to the actor's output, or why they cannot be computed by hand."""
        policy = self.policy
        reason = why_not_drawn(policy)
        if reason is not None:
            return Reason(reason)
        hidden = policy.mlp_extractor.policy_net
        return self.layers(self._of_extractor(policy.pi_features_extractor, hidden, policy.action_net))

    @cached_property
    def critic(self) -> Layers | Reason:
        """Return the layers from the encoded observation to the value, or why they cannot be computed by hand."""
        return self.layers(self.critic_modules)

    @cached_property
    def critic_modules(self) -> list[nn.Module]:
        """Return the modules of the critic, in order."""
        policy = self.policy
        return self._of_extractor(policy.vf_features_extractor, policy.mlp_extractor.value_net, policy.value_net)

    @property
    def log_std(self) -> nn.Parameter | None:
        """Return the logarithm of a Gaussian's standard deviations, shape (d,); None for other distributions."""
        return self.policy.log_std if type(self.policy.action_dist) in GAUSSIANS else None

    @cached_property
    def encode(self) -> Encode:
        """Return SB3's preprocessing: numbers become flat float32, discrete values one-hot; images stay unchanged."""
        space = self.policy.observation_space
        if _reads_images(self.policy.features_extractor):
            return lambda obs: obs
        if isinstance(space, spaces.Discrete):
            return lambda obs: _one_hot(obs.reshape(-1), int(space.n))
        if isinstance(space, spaces.MultiDiscrete):
            return lambda obs: np.concatenate([_one_hot(*pair) for pair in zip(obs.T, space.nvec, strict=True)], axis=1)
        return lambda obs: obs.reshape(len(obs), -1).astype(np.float32, copy=False)

    def inputs(self, states: States, rows: int) -> Iterator[Any]:
        """
        Encode states as the actor's layers read them.

        :param states: B states
        :param rows: number of states in a block
        :return: the input of each block
        """
        assert isinstance(states.observations, th.Tensor)
        for block in th.split(states.observations, rows):
            yield self.encode(block.numpy())

    def outputs(self, states: States) -> np.ndarray:
        """
        Compute the actor's output.

        :param states: B states
        :return: shape (B, n_out)
        """
        assert isinstance(states.observations, th.Tensor)
        assert not isinstance(self.actor, Reason)
        return in_blocks(self.actor, self.encode, states.observations.numpy())

    def layers(self, modules: Sequence[nn.Module]) -> Layers | Reason:
        """
        Make a network of some of the policy's modules.

        :param modules: the modules, in order
        :return: the network; otherwise the first reason why it cannot be computed by hand
        """
        reason = why_not_cnn(modules) if convolves(modules) else why_not_mlp(modules)
        if reason is not None:
            return Reason(reason)
        scale = 255.0 if _scales_images(self.policy) else 1.0
        return Cnn(modules, scale) if convolves(modules) else Mlp(modules)

    @staticmethod
    def _of_extractor(extractor: nn.Module, hidden: Any, last: Any) -> list[nn.Module]:
        return [*_EXTRACTORS[type(extractor)](extractor), *hidden, last]


def why_not_drawn(policy: ActorCriticPolicy) -> str | None:
    """
    Tell whether the network's output gives the action distribution.

    :param policy: any policy
    :return: None if it does; otherwise the reason why not
    """
    if type(policy.action_dist) in _DISTRIBUTIONS:
        return None
    return f"the actions are drawn by a {type(policy.action_dist).__name__}"


def convolves(modules: Sequence[nn.Module]) -> bool:
    """
    Tell whether layers read images.

    :param modules: layers in order
    :return: whether one of them is a convolution
    """
    return any(isinstance(module, nn.Conv2d) for module in modules)


@np.errstate(all="ignore")  # like torch, whatever the user has set
def in_blocks(layers: Layers, encode: Encode, observations: np.ndarray) -> np.ndarray:
    """
    Evaluate a network block by block, so that the hidden layers of only one block are in memory.

    :param layers: the network
    :param encode: see :attr:`PlainPolicy.encode`
    :param observations: shape (B, ...)
    :return: results, shape (B, n_out)
    """
    results = np.empty((len(observations), layers.n_out), dtype=np.float32)
    for i in range(0, len(observations), layers.block_rows):
        block = slice(i, i + layers.block_rows)
        results[block] = layers(encode(observations[block]))
    return results


def _unknown_class(policy: ActorCriticPolicy, classes: Sequence[type]) -> str | None:
    if type(policy) not in classes:
        return f"the policy is a {type(policy).__name__}"
    return None


def _unknown_extractor(policy: ActorCriticPolicy) -> str | None:
    for extractor in (policy.features_extractor, policy.pi_features_extractor, policy.vf_features_extractor):
        if type(extractor) not in _EXTRACTORS or type(extractor) is not type(policy.features_extractor):
            return f"the features extractor is a {type(extractor).__name__}"
        if _scales_images(policy) and not _reads_images(extractor):
            return "the observations are images, and the policy flattens them"
        if type(extractor) is not FlattenExtractor and _loses_dimensions(policy.observation_space, extractor):
            return f"the {type(extractor).__name__} reads observations of several dimensions"
        unknown = _unknown_parts(extractor)
        if unknown is not None:
            return unknown
    return None


def _unknown_network(policy: ActorCriticPolicy) -> str | None:
    if type(policy.mlp_extractor) is not MlpExtractor:
        return f"the network is a {type(policy.mlp_extractor).__name__}"
    for net in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
        if type(net) is not nn.Sequential:
            return f"the network is a {type(net).__name__}"
    return None


def _unknown_parts(extractor: nn.Module) -> str | None:
    """Tell whether an extractor of SB3 or of this package has other parts than its class defines."""
    expected = _PARTS.get(type(extractor))
    parts = {name: type(part) for name, part in extractor.named_children()}
    if expected is not None and parts != expected:
        return f"the {type(extractor).__name__} has other parts than usual"
    flatten = getattr(extractor, "flatten", None)
    if isinstance(flatten, nn.Flatten) and (flatten.start_dim, flatten.end_dim) != (1, -1):
        return f"the {type(extractor).__name__} does not flatten everything"
    return None


def _altered_behaviour(policy: ActorCriticPolicy) -> str | None:
    """Find the first sign that the policy computes or draws something else than its class defines."""
    torch_distributions = (Normal, Categorical, Bernoulli, Beta)
    altered = altered_method([*policy.modules(), policy.action_dist, *torch_distributions])
    if altered is not None:
        return f"{altered} is patched"
    for module, name in _FUNCTIONS:
        if not is_original(module, name):
            return f"`{name}` is patched"
    return None


def _observed(policy: ActorCriticPolicy) -> str | None:
    """Find the first hook or mode that acts when torch computes the policy or its gradient."""
    for path, module in policy.named_modules():
        if any(hooks_of(module)):
            hooks = chain.from_iterable(map(dict.values, hooks_of(module)))
            return HookReason(f"the {type(module).__name__} has hooks", path or "policy", hooks)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if type(parameter) not in (nn.Parameter, th.Tensor):
                return f"the {name} of the {type(module).__name__} is a {type(parameter).__name__}"
            tables = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
            of_gradient = [hook for table in tables for hook in (table or {}).values()]
            if of_gradient:
                text = f"the {name} of the {type(module).__name__} has hooks"
                return HookReason(text, f"{path}.{name}".lstrip("."), of_gradient)
    if th.is_autocast_enabled(policy.device.type):
        return "torch.autocast is on"
    return watched_globally()


def _altered_std(policy: ActorCriticPolicy) -> str | None:
    """Tell why the standard deviation of a Gaussian is not one parameter per action dimension."""
    if type(policy.action_dist) in GAUSSIANS:
        assert isinstance(policy.action_dist, DiagGaussianDistribution)
        log_std = policy._parameters.get("log_std")
        if log_std is None or log_std.dtype != th.float32 or log_std.shape != (policy.action_dist.action_dim,):
            return "log_std is not one float32 parameter per action dimension"
    return None


def _loses_dimensions(space: spaces.Space[Any], extractor: nn.Module) -> bool:
    """Tell whether flattening observations would change what linear layers compute."""
    several = not isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and len(space.shape or ()) != 1
    return several and not _reads_images(extractor)


def _reads_images(extractor: nn.Module) -> bool:
    return convolves(_EXTRACTORS[type(extractor)](extractor))


def _scales_images(policy: ActorCriticPolicy) -> bool:
    return policy.normalize_images and is_image_space(policy.observation_space)


def _one_hot(values: np.ndarray, n: int) -> np.ndarray:
    if len(values) and not (values.min() >= 0 and values.max() < n):  # NumPy would index from the end
        raise ValueError(f"a discrete observation must be in 0 to {n - 1}, not {values[(values < 0) | (values >= n)][0]}")
    rows = np.zeros((len(values), n), dtype=np.float32)
    rows[np.arange(len(values)), values.astype(np.int64)] = 1.0
    return rows

"""Which policies are SB3's own MLP or CNN policy and nothing else, so that their arithmetic may be done without autograd."""

from collections.abc import Callable, Sequence
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
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor, NatureCNN
from torch import nn

from sb3_trpo.actor.cnn import Cnn, why_not_cnn
from sb3_trpo.actor.mlp import Mlp, why_not_mlp
from sb3_trpo.distributions.clipped_gaussian import GAUSSIANS
from sb3_trpo.policies.aliases import CnnPolicy, NormalizedCNN, PaperCNN, PaperCnnPolicy

Layers: TypeAlias = Mlp | Cnn
"""A network as a function with products of its Jacobian, in NumPy arrays."""

_EXTRACTORS: dict[type[nn.Module], Callable[[Any], list[nn.Module]]] = {
    FlattenExtractor: lambda extractor: [],
    NatureCNN: lambda extractor: [*extractor.cnn, *extractor.linear],
    NormalizedCNN: lambda extractor: [extractor.normalization, *extractor.cnn, *extractor.linear],
    PaperCNN: lambda extractor: [extractor.normalization, *extractor.cnn, *extractor.linear],
}
"""Features extractors that are known: their layers, in order."""

_DISTRIBUTIONS = (*GAUSSIANS, CategoricalDistribution, MultiCategoricalDistribution, BernoulliDistribution)
"""Those whose parameters are the network's output, but for the normalisation of logits and the std."""

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


def why_not_plain(policy: ActorCriticPolicy) -> str | None:
    """
    Tell whether a policy computes exactly what its layers say: features, then two separate MLPs.

    :param policy: any policy
    :return: None if it does; otherwise the first thing that speaks against it
    """
    if type(policy) not in (ActorCriticPolicy, ActorCriticCnnPolicy, CnnPolicy, PaperCnnPolicy):
        return f"the policy is a {type(policy).__name__}"
    for extractor in (policy.features_extractor, policy.pi_features_extractor, policy.vf_features_extractor):
        if type(extractor) not in _EXTRACTORS or type(extractor) is not type(policy.features_extractor):
            return f"the features extractor is a {type(extractor).__name__}"
        if type(extractor) is FlattenExtractor and _scales_images(policy):
            return "the observations are images, and the policy flattens them"
    if type(policy.mlp_extractor) is not MlpExtractor:
        return f"the network is a {type(policy.mlp_extractor).__name__}"
    for net in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
        if type(net) is not nn.Sequential:
            return f"the network is a {type(net).__name__}"
    return _altered_behaviour(policy) or _altered_std(policy)


def why_not_plain_actor(policy: ActorCriticPolicy) -> str | None:
    """
    Tell whether a policy acts as its layers and one of SB3's plain distributions say.

    :param policy: any policy
    :return: None if it does; otherwise the first thing that speaks against it
    """
    if type(policy.action_dist) not in _DISTRIBUTIONS:
        return f"the actions are drawn by a {type(policy.action_dist).__name__}"
    return why_not_plain(policy) or why_not_layers(actor_layers(policy))


def _altered_behaviour(policy: ActorCriticPolicy) -> str | None:
    """The first sign that calling or differentiating the policy does more than its class says."""
    if any(getattr(ActorCriticPolicy, name) is not method for name, method in _METHODS.items()):
        return "a method of ActorCriticPolicy is patched"
    for module in policy.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if any(hooks) or any(parameter._backward_hooks for parameter in module._parameters.values() if parameter is not None):
            return f"the {type(module).__name__} has hooks"
        if any(callable(value) and hasattr(type(module), name) for name, value in vars(module).items()):
            return f"a method of the {type(module).__name__} is patched"
    return None


def _altered_std(policy: ActorCriticPolicy) -> str | None:
    """Whether a Gaussian has another standard deviation than one parameter an action dimension."""
    if type(policy.action_dist) in GAUSSIANS:
        assert isinstance(policy.action_dist, DiagGaussianDistribution)
        log_std = policy._parameters.get("log_std")
        if log_std is None or log_std.dtype != th.float32 or log_std.shape != (policy.action_dist.action_dim,):
            return "log_std is not one float32 parameter an action dimension"
    return None


def actor_layers(policy: ActorCriticPolicy) -> list[nn.Module]:
    """
    :param policy: a plain policy
    :return: what leads from the encoded observation to the output of the actor
    """
    extractor = policy.pi_features_extractor
    return [*_EXTRACTORS[type(extractor)](extractor), *policy.mlp_extractor.policy_net, _module(policy.action_net)]


def critic_layers(policy: ActorCriticPolicy) -> list[nn.Module]:
    """
    :param policy: a plain policy
    :return: what leads from the encoded observation to the value
    """
    extractor = policy.vf_features_extractor
    return [*_EXTRACTORS[type(extractor)](extractor), *policy.mlp_extractor.value_net, _module(policy.value_net)]


def why_not_layers(modules: Sequence[nn.Module]) -> str | None:
    """
    :param modules: layers in order
    :return: None if :func:`make_layers` computes what they do; otherwise the first thing that speaks against it
    """
    return why_not_cnn(modules) if convolves(modules) else why_not_mlp(modules)


def make_layers(policy: ActorCriticPolicy, modules: Sequence[nn.Module]) -> Layers:
    """
    :param policy: a plain policy
    :param modules: some of its layers, in order, that :func:`why_not_layers` accepts
    :return: the network that they make
    """
    return Cnn(modules, scale=255.0 if _scales_images(policy) else 1.0) if convolves(modules) else Mlp(modules)


@np.errstate(all="ignore")  # as torch does, whatever the user has set
def in_blocks(layers: Layers, encode: Callable[[np.ndarray], np.ndarray], observations: np.ndarray) -> np.ndarray:
    """
    :param layers: a network
    :param encode: see :func:`encoder`
    :param observations: shape (B, ...)
    :return: results, shape (B, n_out), with the hidden layers of one block at a time in memory
    """
    results = np.empty((len(observations), layers.n_out), dtype=np.float32)
    for i in range(0, len(observations), layers.block_rows):
        block = slice(i, i + layers.block_rows)
        results[block] = layers(encode(observations[block]))
    return results


def convolves(modules: Sequence[nn.Module]) -> bool:
    """
    :param modules: layers in order
    :return: whether they read images
    """
    return any(isinstance(module, nn.Conv2d) for module in modules)


def _scales_images(policy: ActorCriticPolicy) -> bool:
    return policy.normalize_images and is_image_space(policy.observation_space)


def _module(module: nn.Module | th.Tensor) -> nn.Module:
    assert isinstance(module, nn.Module)
    return module


def encoder(policy: ActorCriticPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """
    What SB3's preprocessing and flattening do: numbers as float32, discrete ones one-hot. Images stay as they are.

    :param policy: a plain policy
    :return: observations of shape (B, ...) -> what the first of its layers reads
    """
    if type(policy.features_extractor) is not FlattenExtractor:
        return lambda obs: obs
    space = policy.observation_space
    if isinstance(space, spaces.Discrete):
        return lambda obs: _one_hot(obs.reshape(-1), int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return lambda obs: np.concatenate([_one_hot(*pair) for pair in zip(obs.T, space.nvec, strict=True)], axis=1)
    return lambda obs: obs.reshape(len(obs), -1).astype(np.float32, copy=False)


def _one_hot(values: np.ndarray, n: int) -> np.ndarray:
    if len(values) and not (values.min() >= 0 and values.max() < n):  # NumPy would count from the end
        raise ValueError(f"a discrete observation must be in 0 to {n - 1}, not {values[(values < 0) | (values >= n)][0]}")
    rows = np.zeros((len(values), n), dtype=np.float32)
    rows[np.arange(len(values)), values.astype(np.int64)] = 1.0
    return rows

"""Brings models of sb3-contrib's MaskablePPO into this package's form. sb3-contrib need not be installed."""

from importlib import import_module
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_trpo.policies.maskable import MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy

_POLICIES = "sb3_contrib.common.maskable.policies"
_BUFFERS = "sb3_contrib.common.maskable.buffers"

_OWN: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "MaskableActorCriticPolicy": (MaskableMlpPolicy, {}),
    "MaskableActorCriticCnnPolicy": (
        MaskableCnnPolicy,
        {"features_extractor_class": NatureCNN, "share_features_extractor": True},
    ),
    "MaskableMultiInputActorCriticPolicy": (MaskableMultiInputPolicy, {"share_features_extractor": True}),
}
"""For each of sb3-contrib's maskable policies the one that computes the same here, and the defaults of the former."""


def is_maskable_module(name: str) -> bool:
    """
    Tell whether a module is that of sb3-contrib's maskable policies or buffers.

    :param name: name of the module
    :return: whether it is
    """
    return name in (_POLICIES, _BUFFERS)


def contrib_class(name: str) -> Any:
    """
    Import a class of sb3-contrib.

    :param name: name of the class
    :return: the class
    :raises ImportError: if sb3-contrib is not installed
    """
    try:
        return getattr(import_module("sb3_contrib"), name)
    except ImportError as error:
        raise ImportError(f"a model of {name} can be read only with sb3-contrib: pip install sb3-contrib") from error


def own_form(policy_class: type[Any], settings: dict[str, Any], action_space: Any) -> tuple[type[Any], dict[str, Any]]:
    """
    Replace what MaskablePPO chose for itself by what computes the same faster.

    sb3-contrib's policy for ``MultiBinary`` has two outputs for each dimension, so it stays as it is, as does any class that
    is not sb3-contrib's own.

    :param policy_class: class of the model's policy
    :param settings: keyword arguments for the new model
    :param action_space: the action space
    :return: class of the new policy, and the keyword arguments for the new model
    """
    buffer = settings.get("rollout_buffer_class")
    if isinstance(buffer, type) and buffer.__module__ == _BUFFERS:
        settings = {**settings, "rollout_buffer_class": None}
    if policy_class.__module__ != _POLICIES or isinstance(action_space, spaces.MultiBinary):
        return policy_class, settings
    own, defaults = _OWN[policy_class.__name__]
    return own, {**settings, "policy_kwargs": {**defaults, **(settings.get("policy_kwargs") or {})}}

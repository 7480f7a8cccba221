"""Checks of the spaces against the policy and the memory, before anything is built."""

import os
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN

from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN

_SMALLEST = {NatureCNN: NormalizedCNN.smallest, NormalizedCNN: NormalizedCNN.smallest, PaperCNN: PaperCNN.smallest}
"""Pixels a side below which the last convolution of the extractor has nothing to read."""

_DEFAULTS: dict[type[BasePolicy], type[BaseFeaturesExtractor]] = {
    CnnPolicy: CnnPolicy.default_extractor,
    PaperCnnPolicy: PaperCnnPolicy.default_extractor,
    ActorCriticCnnPolicy: NatureCNN,
    MultiInputPolicy: CombinedExtractor,
    MultiInputActorCriticPolicy: CombinedExtractor,
}
"""Features extractors of the policies that are known."""


def check_images(space: spaces.Space[Any], policy: type[BasePolicy], policy_kwargs: dict[str, Any]) -> None:
    """
    Check that a ``CnnPolicy`` or a ``MultiInputPolicy`` can read the observations. Extractors of the user's own are not known,
    nor is the default one of a policy class of the user's own.

    :param space: the observation space, with the channels first if SB3 took it for images
    :param policy: class of the policy
    :param policy_kwargs: its arguments
    :raises ValueError: saying what the observations are and what they must be
    """
    if issubclass(policy, MultiInputActorCriticPolicy):
        _check_dict(space, policy, policy_kwargs)
    extractor = policy_kwargs.get("features_extractor_class", _DEFAULTS.get(policy))
    if not issubclass(policy, ActorCriticCnnPolicy) or extractor not in _SMALLEST:
        return
    name = f"`{policy.__name__}` with {extractor.__name__}"
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        raise ValueError(f"{name} needs images, which have 3 dimensions, not {space}; for other observations take `MlpPolicy`")
    low, high = space.low.min(), space.high.max()
    if policy_kwargs.get("normalize_images", True) and (space.dtype != np.uint8 or low != 0 or high != 255):
        raise ValueError(
            f"{name} needs images of uint8 in [0, 255], not of {space.dtype} in [{low:g}, {high:g}]; for images that are "
            "in [0, 1] already, with the channels first, pass `policy_kwargs=dict(normalize_images=False)`"
        )
    _check_size(name, space, _SMALLEST[extractor])


def _check_dict(space: spaces.Space[Any], policy: type[BasePolicy], policy_kwargs: dict[str, Any]) -> None:
    """The dict, and the images in it, which SB3's ``CombinedExtractor`` gives to ``NatureCNN``."""
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"`MultiInputPolicy` needs observations of a Dict space, not {space}")
    if policy_kwargs.get("features_extractor_class", _DEFAULTS.get(policy)) is not CombinedExtractor:
        return
    for key, part in space.spaces.items():
        if is_image_space(part, normalized_image=not policy_kwargs.get("normalize_images", True)):
            _check_size(f"`MultiInputPolicy` with NatureCNN for {key!r}", part, _SMALLEST[NatureCNN])


def _check_size(name: str, space: spaces.Space[Any], smallest: int) -> None:
    channels, *pixels = space.shape or ()
    if min(pixels) < smallest:
        # SB3 has moved the channels to the front already, of images of uint8 in [0, 255]
        where = "first or last" if is_image_space(space, check_channels=False) else "first"
        raise ValueError(
            f"{name} needs images of {smallest} x {smallest} pixels or more, with the channels {where}; the shape "
            f"{space.shape} reads as {channels} channels of {pixels[0]} x {pixels[1]} pixels: enlarge them, move the "
            "channels, or pass another `features_extractor_class` in `policy_kwargs`"
        )


def check_discrete(name: str, space: spaces.Space[Any]) -> None:
    """
    Check that discrete values begin at 0 and come in a row at most, as SB3 encodes and draws them.

    :param name: of the space
    :param space: an observation or action space
    :raises ValueError: naming the space
    """
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    for part in parts:
        if isinstance(part, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(part.start):
            raise ValueError(f"the discrete values of `{name}` must begin at 0, not as in {part!r}; shift them in a wrapper")
        if isinstance(part, spaces.MultiDiscrete) and part.nvec.ndim > 1:
            raise ValueError(f"a MultiDiscrete in `{name}` must have one dimension, not {part!r}; flatten it in a wrapper")


def check_actions(space: spaces.Space[Any]) -> None:
    """
    Check that a rollout buffer can hold the actions as they were drawn: it stores them in the dtype of their space.

    :param space: the action space
    :raises ValueError: if they are real numbers and their space is one of integers
    """
    if isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"a Box in `action_space` must be of floats, not of {space.dtype}: Gaussian actions would be stored as integers, "
            "and trained on as if those had been drawn; take a Box of float32 and round in a wrapper"
        )


def check_memory(space: spaces.Space[Any], n_steps: int, n_envs: int) -> None:
    """
    Check that a rollout's observations fit into the machine's memory, if the system tells its size.

    :param space: the observation space
    :param n_steps: steps of a rollout
    :param n_envs: number of environments
    :raises ValueError: saying what is needed and what there is
    """
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return
    size, memory = _bytes(space), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = n_steps * n_envs * size
    if 0 < memory < needed:
        raise ValueError(
            f"`n_steps * n_envs` = {n_steps} * {n_envs} observations of {size:,} bytes need {needed / 1e9:.1f} GB, "
            f"but the machine has {memory / 1e9:.1f} GB of memory; lower `n_steps`"
        )


def _bytes(space: spaces.Space[Any]) -> int:
    """Bytes of one observation in the rollout buffer."""
    if isinstance(space, spaces.Dict):
        return sum(_bytes(part) for part in space.spaces.values())
    return int(np.prod(space.shape or (1,))) * np.dtype(space.dtype or np.float32).itemsize

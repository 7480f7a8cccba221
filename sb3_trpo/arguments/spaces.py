"""Checks of the spaces against the policy and the memory, before anything is built."""

import os
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN

from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.beta import BetaCnnPolicy, BetaMultiInputPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.maskable import MaskableCnnPolicy, MaskableMultiInputPolicy
from sb3_trpo.policies.recurrent import CnnLstmPolicy, MultiInputLstmPolicy

_SMALLEST = {NatureCNN: NormalizedCNN.smallest, NormalizedCNN: NormalizedCNN.smallest, PaperCNN: PaperCNN.smallest}
"""Smallest width and height, in pixels, for the convolutions of each extractor."""

_DEFAULTS: dict[type[BasePolicy], type[BaseFeaturesExtractor]] = {
    CnnPolicy: CnnPolicy.default_extractor,
    PaperCnnPolicy: PaperCnnPolicy.default_extractor,
    ActorCriticCnnPolicy: NatureCNN,
    MultiInputPolicy: CombinedExtractor,
    BetaCnnPolicy: BetaCnnPolicy.default_extractor,
    BetaMultiInputPolicy: CombinedExtractor,
    MaskableCnnPolicy: MaskableCnnPolicy.default_extractor,
    MaskableMultiInputPolicy: CombinedExtractor,
    MultiInputActorCriticPolicy: CombinedExtractor,
    CnnLstmPolicy: NatureCNN,
    MultiInputLstmPolicy: CombinedExtractor,
}
"""Default features extractors of the policies that this package knows."""

_PARTS = "Box, Discrete, MultiDiscrete or MultiBinary"
"""Observation spaces that SB3 can store and encode."""


class UnsupportedSpaceError(ValueError, NotImplementedError):
    """Refuses an observation space. It is a ``NotImplementedError`` too, as which SB3 refuses some of them."""


class UnsuitableImagesError(ValueError, AssertionError):
    """Refuses images. It is an ``AssertionError`` too, as which SB3's ``NatureCNN`` refuses them."""


def check_observations(space: spaces.Space[Any]) -> None:
    """
    Check that SB3's buffers and preprocessing know the observations.

    :param space: the observation space
    :raises UnsupportedSpaceError: naming the space, and the key if it is a Dict, and the spaces that are supported
    """
    if not isinstance(space, spaces.Dict):
        _check_part("`observation_space`", space, f"{_PARTS}, or a Dict of these for `MultiInputPolicy`")
        return
    if not space.spaces:
        raise UnsupportedSpaceError("`observation_space` is a Dict without keys, so there is nothing to observe")
    for key, part in space.spaces.items():
        _check_part(f"{key!r} in the Dict of `observation_space`", part, f"{_PARTS}; leave {key!r} out in a wrapper")


def _check_part(name: str, space: spaces.Space[Any], supported: str) -> None:
    """Check an observation space that is not a Dict, or one key of a Dict."""
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise UnsupportedSpaceError(f"{name} is a {type(space).__name__}, but must be a {supported}")
    if isinstance(space, spaces.Box) and not space.shape:
        raise UnsupportedSpaceError(f"{name} must have at least one dimension, not {space}; use the shape (1,)")
    if 0 in (space.shape or ()):
        raise UnsupportedSpaceError(f"{name} must have no dimension of size 0, not {space}: there is nothing to observe")


def check_images(space: spaces.Space[Any], policy: type[BasePolicy], policy_kwargs: dict[str, Any]) -> None:
    """
    Check that a ``CnnPolicy`` or a ``MultiInputPolicy`` can read the observations.

    Custom extractors are not checked, nor are the default extractors of custom policy classes.

    :param space: the observation space, with the channels first if SB3 took it for images
    :param policy: class of the policy
    :param policy_kwargs: its arguments
    :raises UnsuitableImagesError: naming the observation space and what it must be
    """
    if issubclass(policy, MultiInputActorCriticPolicy):
        _check_dict(space, policy, policy_kwargs)
    extractor = policy_kwargs.get("features_extractor_class", _DEFAULTS.get(policy))
    if not issubclass(policy, ActorCriticCnnPolicy) or extractor not in _SMALLEST:
        return
    name = f"`{policy.__name__}` with {extractor.__name__}"
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        raise UnsuitableImagesError(
            f"{name} needs images, which have 3 dimensions, not {space}; for other observations use `MlpPolicy`"
        )
    low, high = space.low.min(), space.high.max()
    if policy_kwargs.get("normalize_images", True) and (space.dtype != np.uint8 or low != 0 or high != 255):
        raise UnsuitableImagesError(
            f"{name} needs images of uint8 in [0, 255], not of {space.dtype} in [{low:g}, {high:g}]; for images that are "
            "in [0, 1] already, with the channels first, pass `policy_kwargs=dict(normalize_images=False)`"
        )
    _check_size(name, space, _SMALLEST[extractor])


def _check_dict(space: spaces.Space[Any], policy: type[BasePolicy], policy_kwargs: dict[str, Any]) -> None:
    """Check the dict, and the images in it, which SB3's ``CombinedExtractor`` passes to ``NatureCNN``."""
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
        # SB3 has already moved the channels of uint8 images in [0, 255] to the front
        where = "first or last" if is_image_space(space, check_channels=False) else "first"
        raise ValueError(
            f"{name} needs images of {smallest} x {smallest} pixels or more, with the channels {where}; the shape "
            f"{space.shape} reads as {channels} channels of {pixels[0]} x {pixels[1]} pixels: enlarge them, move the "
            "channels, or pass another `features_extractor_class` in `policy_kwargs`"
        )


def check_discrete(name: str, space: spaces.Space[Any]) -> None:
    """
    Check that discrete values start at 0 and have at most one dimension, as SB3's encoding and sampling require.

    :param name: name of the space
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
    Check that there are actions, and that a rollout buffer, which stores them in their space's dtype, does not round them.

    :param space: the action space
    :raises ValueError: if a dimension has size 0, or it is a Box of integers
    """
    if 0 in (space.shape or ()):
        raise ValueError(f"`action_space` must have no dimension of size 0, not {space}: there is nothing to decide")
    if isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"a Box in `action_space` must be of floats, not of {space.dtype}: the rollout buffer would round Gaussian "
            "actions, and the update would use the rounded ones; use a Box of float32 and round in a wrapper"
        )


def check_memory(space: spaces.Space[Any], n_steps: int, n_envs: int, extra: dict[str, int] | None = None) -> None:
    """
    Check that a rollout's observations fit into the machine's memory, if the system reports its size.

    :param space: the observation space
    :param n_steps: steps of a rollout
    :param n_envs: number of environments
    :param extra: bytes of whatever else each step of an environment takes, by name
    :raises ValueError: naming the memory that is needed and the memory of the machine
    """
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return
    size, memory = _bytes(space), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    extra = extra or {}
    needed = n_steps * n_envs * (size + sum(extra.values()))
    if 0 < memory < needed:
        others = "".join(f" and {name} of {bytes_:,} bytes" for name, bytes_ in extra.items())
        raise ValueError(
            f"`n_steps * n_envs` = {n_steps} * {n_envs} observations of {size:,} bytes{others} need {needed / 1e9:.1f} GB, "
            f"but the machine has {memory / 1e9:.1f} GB of memory; lower `n_steps`"
        )


def _bytes(space: spaces.Space[Any]) -> int:
    """Compute the bytes of one observation in the rollout buffer."""
    if isinstance(space, spaces.Dict):
        return sum(_bytes(part) for part in space.spaces.values())
    return int(np.prod(space.shape or (1,))) * np.dtype(space.dtype or np.float32).itemsize

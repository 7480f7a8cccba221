"""The inputs of an exported policy, and how each of them becomes what the policy reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

OBSERVATION = "observation"
"""Name of the input with the observations; for a Dict, the key follows after a dot."""


class Standardize(nn.Module):
    """
    Computes what ``VecNormalize.normalize_obs`` does, in the same float64.

    :param mean: shape of an observation
    :param var: shape of an observation
    :param epsilon: added to the variance
    :param clip: largest size of a standardised number
    """

    def __init__(self, mean: np.ndarray, var: np.ndarray, epsilon: float, clip: float) -> None:
        super().__init__()
        self.mean: th.Tensor
        self.std: th.Tensor
        self.clip = float(clip)
        self.register_buffer("mean", th.tensor(mean, dtype=th.float64))
        self.register_buffer("std", th.tensor(np.sqrt(np.asarray(var, dtype=np.float64) + epsilon)))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Standardise observations.

        :param observations: shape (B, ...)
        :return: float32 of the same shape
        """
        return ((observations.double() - self.mean) / self.std).clamp(-self.clip, self.clip).float()


class ChannelsFirst(nn.Module):
    """Moves the channels of images to the front, as ``VecTransposeImage`` does."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Move the channels.

        :param observations: shape (B, h, w, c)
        :return: shape (B, c, h, w)
        """
        return observations.permute(0, 3, 1, 2)


class NamedInput(NamedTuple):
    """
    An input of the exported policy.

    :param name: its name in the file
    :param field: field of :class:`~sb3_trpo.batch.states.States` that it belongs to
    :param key: key of the Dict that it belongs to; None: it is the whole field
    :param space: space of its values as the environment returns them; the input has one more dimension in front, the batch
    :param steps: modules that turn it into what the policy reads, in order
    """

    name: str
    field: str
    key: str | None
    space: spaces.Space[Any]
    steps: tuple[nn.Module, ...]

    @property
    def normalizes(self) -> bool:
        """Return whether the values are standardised."""
        return any(isinstance(step, Standardize) for step in self.steps)


class Preparation(NamedTuple):
    """
    The way of an observation from the environment to the policy.

    :param space: observation space of the environment, before the steps
    :param vec_normalize: the statistics with which observations are standardised; None: they are not
    :param transposed: keys of the images whose channels are moved to the front; the key is None if there is no Dict
    """

    space: spaces.Space[Any]
    vec_normalize: VecNormalize | None
    transposed: frozenset[str | None]

    def inputs(self, space: spaces.Space[Any]) -> tuple[NamedInput, ...]:
        """
        Make the inputs with their steps.

        :param space: observation space of the policy
        :return: one input for each key of a Dict, in its order, or a single one
        :raises ValueError: if the statistics do not fit the observations
        """
        read, raw = parts_of(space), parts_of(self.space)
        statistics = statistics_by_key(self.vec_normalize)
        unknown = sorted(map(str, statistics.keys() - read.keys()))
        if unknown:
            raise ValueError(f"`vec_normalize` has statistics of {', '.join(unknown)}, which the policy does not observe")
        made = []
        for key in read:
            name = OBSERVATION if key is None else f"{OBSERVATION}.{key}"
            steps = [ChannelsFirst()] if key in self.transposed else []
            made.append(NamedInput(name, "observations", key, raw[key], self._with_statistics(steps, raw[key], key)))
        return tuple(made)

    def _with_statistics(self, steps: Sequence[nn.Module], raw: spaces.Space[Any], key: str | None) -> tuple[nn.Module, ...]:
        """Place the standardisation before or after the channels are moved, where its shape fits."""
        statistics = statistics_by_key(self.vec_normalize).get(key)
        if statistics is None or self.vec_normalize is None:
            return tuple(steps)
        standardize = Standardize(statistics.mean, statistics.var, self.vec_normalize.epsilon, self.vec_normalize.clip_obs)
        if statistics.mean.shape == (raw.shape or ()):
            return (standardize, *steps)
        if steps and statistics.mean.shape == _channels_first(raw.shape or ()):
            return (*steps, standardize)
        raise ValueError(
            f"`vec_normalize` has statistics of shape {statistics.mean.shape}, but the observations have the shape "
            f"{raw.shape}{'' if key is None else f' for the key {key!r}'}"
        )

    def by_sb3(self, observations: dict[str | None, np.ndarray]) -> Any:
        """
        Prepare observations for ``predict`` with the functions of SB3's wrappers.

        :param observations: by key, or under None if there is no Dict; each of shape (B, ...)
        :return: as the policy reads them: an array of shape (B, ...), or a dict of such
        """
        shapes = {key: statistics.mean.shape for key, statistics in statistics_by_key(self.vec_normalize).items()}
        moved = {key: np.transpose(observations[key], (0, 3, 1, 2)) for key in self.transposed}
        first = {key: moved[key] for key in moved if shapes.get(key) in (None, moved[key].shape[1:])}
        given: Any = _undict({**observations, **first})
        prepared = given if self.vec_normalize is None else self.vec_normalize.normalize_obs(given)
        parts: dict[Any, np.ndarray] = prepared if isinstance(prepared, dict) else {None: prepared}
        later = {key: np.transpose(parts[key], (0, 3, 1, 2)) for key in self.transposed - first.keys()}
        return _undict({**parts, **later})


def _undict(parts: dict[Any, np.ndarray]) -> Any:
    return parts.get(None, parts)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    height, width, channels = shape
    return channels, height, width


def parts_of(space: spaces.Space[Any]) -> dict[str | None, spaces.Space[Any]]:
    """
    Take an observation space apart.

    :param space: the space
    :return: the parts of a Dict by key; the space itself under None if it is no Dict
    """
    return dict(space.spaces.items()) if isinstance(space, spaces.Dict) else {None: space}


def statistics_by_key(vec_normalize: VecNormalize | None) -> dict[str | None, Any]:
    """
    Find the statistics of the observations.

    :param vec_normalize: a wrapper, or None
    :return: SB3's ``RunningMeanStd`` for each key that is standardised; under None if there is no Dict
    """
    if vec_normalize is None or not vec_normalize.norm_obs:
        return {}
    statistics: Any = vec_normalize.obs_rms
    return {**statistics} if isinstance(statistics, dict) else {None: statistics}

"""Finds how the observations of an environment become those of the policy: statistics, and the order of the channels."""

from typing import Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from sb3_trpo.checks import Rule, check, described
from sb3_trpo.export.inputs import Preparation, parts_of, statistics_by_key

Statistics: TypeAlias = VecNormalize | Literal["auto"] | None
"""Where the statistics of the observations come from: a wrapper, the model's environment, or there are none."""

Channels: TypeAlias = Literal["first", "last"] | None
"""Where the images of the environment have their channels; None: where the model's environment has them."""

_CHANNELS = Rule("None, 'first' or 'last'", lambda v: v is None or v in ("first", "last"))
_KEEP_OBSERVATIONS = (VecMonitor, VecCheckNan, VecVideoRecorder)


def preparation_of(model: OnPolicyAlgorithm, statistics: Statistics, channels: Channels) -> Preparation:
    """
    Find the way of the observations from the environment to the policy.

    :param model: the model
    :param statistics: statistics of the observations; "auto": those of the model's environment
    :param channels: where the images have their channels; None: where the model's environment has them, and without an
        environment where the policy reads them
    :return: the way
    :raises ValueError: if it is unknown whether the observations are standardised, if there are no statistics yet, or if a
        wrapper lies in between that cannot be exported
    :raises TypeError: if ``vec_normalize`` is something else
    """
    check("image_channels", channels, _CHANNELS)
    if (isinstance(statistics, str) and statistics != "auto") or not isinstance(statistics, VecNormalize | str | None):
        raise TypeError(f"`vec_normalize` must be a VecNormalize, None or 'auto', not {described(statistics)}")
    wrappers, between = _changing_wrappers(model.get_env())
    if between and statistics == "auto":
        raise ValueError(
            f"{between[0]} lies between {type(wrappers[-1]).__name__} and the policy, and may change the observations: put it "
            "below, or pass `vec_normalize` (the statistics, or None) if it does not change them"
        )
    normalizing = [wrapper for wrapper in wrappers if isinstance(wrapper, VecNormalize)]
    if len(normalizing) > 1 and statistics == "auto":
        raise ValueError("two VecNormalize wrappers normalise the observations: only one can be exported")
    found = next(iter(normalizing), None)
    if statistics == "auto" and model.get_env() is None:
        _refuse_unknown_statistics(model)
    chosen = found if statistics == "auto" else statistics
    _check_statistics(chosen)
    assert not isinstance(chosen, str)
    transposed = _transposed(wrappers, model.observation_space, channels)
    as_found = wrappers and not between and chosen is found and channels is None
    raw = wrappers[-1].venv.observation_space if as_found else _before(model.observation_space, transposed)
    return Preparation(raw, chosen if statistics_by_key(chosen) else None, transposed)


def _changing_wrappers(env: VecEnv | None) -> tuple[list[VecEnvWrapper], list[str]]:
    """Find the wrappers that can be exported, the outermost first, and the names of others above the last of them."""
    changing: list[VecEnvWrapper] = []
    others: list[str] = []
    between: list[str] = []
    while isinstance(env, VecEnvWrapper):
        changes = (isinstance(env, VecNormalize) and env.norm_obs) or (isinstance(env, VecTransposeImage) and not env.skip)
        if changes:
            changing.append(env)
            between = list(others)
        elif not isinstance(env, (*_KEEP_OBSERVATIONS, VecNormalize, VecTransposeImage)):
            others.append(type(env).__name__)
        env = env.venv
    return changing, between


def _refuse_unknown_statistics(model: OnPolicyAlgorithm) -> None:
    """Refuse a model without an environment if its observations may have been standardised."""
    normalized = model._last_original_obs is not None  # SB3 sets it only if there is a VecNormalize
    unknown = model._last_obs is None and model.num_timesteps > 0
    boxes = any(isinstance(part, spaces.Box) for part in parts_of(model.observation_space).values())
    if boxes and (normalized or unknown):
        why = "was trained with a VecNormalize" if normalized else "may have been trained with a VecNormalize"
        raise ValueError(
            f"the model {why}, and has no environment now: pass its statistics as `vec_normalize` (a VecNormalize), or "
            "`vec_normalize=None` if the observations were not normalised"
        )


def _check_statistics(vec_normalize: Any) -> None:
    """Refuse statistics that were never gathered, or that give no numbers."""
    for key, statistics in statistics_by_key(vec_normalize).items():
        name = "`vec_normalize`" if key is None else f"`vec_normalize` for the key {key!r}"
        mean, var = np.asarray(statistics.mean), np.asarray(statistics.var)
        if statistics.count < 1.0 and not mean.any() and (var == 1.0).all():
            raise ValueError(f"{name} normalises observations, but has seen none: there are no statistics to export")
        if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0.0).all()):
            raise ValueError(f"{name} must have finite means and variances >= 0, not {mean} and {var}")


def _transposed(wrappers: list[VecEnvWrapper], space: spaces.Space[Any], channels: Channels) -> frozenset[str | None]:
    """Find the keys of the images whose channels are moved to the front."""
    images = {
        key
        for key, part in parts_of(space).items()
        if is_image_space(part) and is_image_space_channels_first(part)  # type: ignore[arg-type]
    }
    moved: set[str | None] = set()
    for wrapper in wrappers:
        if isinstance(wrapper, VecTransposeImage):
            moved |= set(getattr(wrapper, "image_space_keys", [None]))
    if channels == "last" and not images | moved:
        raise ValueError(f"`image_channels` = 'last' needs images that the policy reads with the channels first, not {space}")
    return frozenset({"first": set(), "last": images | moved, None: moved}[channels])


def _before(space: spaces.Space[Any], transposed: frozenset[str | None]) -> spaces.Space[Any]:
    """Make the observation space before the channels of some images were moved."""
    parts: dict[Any, spaces.Space[Any]] = {}
    for key, part in parts_of(space).items():
        if key in transposed:
            assert isinstance(part, spaces.Box)
            low, high = (np.transpose(bound, (1, 2, 0)) for bound in (part.low, part.high))
            part = spaces.Box(low, high, dtype=part.dtype)
        parts[key] = part
    return spaces.Dict(parts) if isinstance(space, spaces.Dict) else parts[None]

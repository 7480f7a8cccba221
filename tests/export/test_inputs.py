"""The steps compute what SB3's wrappers do, bit for bit, in the order of the wrappers."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

from sb3_trpo.export.inputs import ChannelsFirst, Preparation, Standardize, statistics_by_key
from tests.export.models import normalized_env, sampled
from tests.toy_envs import IMAGE, RandomEnv

FAR = spaces.Box(1e6 - 1.0, 1e6 + 1.0, (3,), dtype=np.float64)


@pytest.mark.parametrize("space", [FAR, spaces.Box(-9.0, 9.0, (3,)), spaces.Box(0, 255, (3,), dtype=np.uint8)], ids=str)
@pytest.mark.parametrize("clip", [10.0, 0.5])
def test_standardize_equals_vec_normalize(space: spaces.Box, clip: float) -> None:
    env = normalized_env(RandomEnv(space), clip_obs=clip)
    statistics: Any = env.obs_rms
    statistics.mean = space.low + np.array([0.1, 1.1, 1.9])  # float32 would lose the digits of the distant ones
    standardize = Standardize(statistics.mean, statistics.var, env.epsilon, env.clip_obs)
    observations = sampled(space, 100)
    expected = env.normalize_obs(observations)
    assert isinstance(expected, np.ndarray)
    assert np.array_equal(standardize(th.as_tensor(observations)).numpy(), expected)


def test_channels_first_equals_vec_transpose_image() -> None:
    images = sampled(spaces.Box(0, 255, (5, 4, 3), dtype=np.uint8), 2)
    assert np.array_equal(ChannelsFirst()(th.as_tensor(images)).numpy(), VecTransposeImage.transpose_image(images))


@pytest.mark.parametrize("transposed_first", [True, False])
def test_the_order_of_the_steps_is_that_of_the_wrappers(transposed_first: bool) -> None:
    """``VecNormalize`` may lie above or below ``VecTransposeImage``; the shape of its statistics tells."""
    shape = (1, 36, 36) if transposed_first else (36, 36, 1)
    env = normalized_env(RandomEnv(spaces.Box(0, 255, shape, dtype=np.uint8)))
    statistics: Any = env.obs_rms
    statistics.mean = np.random.default_rng(0).uniform(0.0, 255.0, shape)
    preparation = Preparation(IMAGE, env, frozenset({None}))
    (given,) = preparation.inputs(spaces.Box(-10.0, 10.0, (1, 36, 36)))
    order = [Standardize, ChannelsFirst]
    assert [type(step) for step in given.steps] == (order[::-1] if transposed_first else order)
    images = sampled(IMAGE, 2)
    prepared = th.nn.Sequential(*given.steps)(th.as_tensor(images)).numpy()
    assert prepared.shape == (2, 1, 36, 36)
    assert np.array_equal(prepared, preparation.by_sb3({None: images}))


def test_statistics_must_fit() -> None:
    env = normalized_env(RandomEnv(FAR))
    preparation = Preparation(spaces.Box(-1.0, 1.0, (4,)), env, frozenset())
    with pytest.raises(ValueError, match=r"statistics of shape \(3,\), but the observations have the shape \(4,\)"):
        preparation.inputs(preparation.space)
    keyed = normalized_env(RandomEnv(spaces.Dict({"a": FAR})))
    with pytest.raises(ValueError, match="`vec_normalize` has statistics of a, which the policy does not observe"):
        Preparation(FAR, keyed, frozenset()).inputs(FAR)


def test_statistics_by_key() -> None:
    rewards_only = VecNormalize(DummyVecEnv([RandomEnv]), norm_obs=False)
    assert statistics_by_key(None) == statistics_by_key(rewards_only) == {}
    assert list(statistics_by_key(normalized_env(RandomEnv(FAR)))) == [None]
    keyed = normalized_env(RandomEnv(spaces.Dict({"a": FAR, "b": FAR})), norm_obs_keys=["b"])
    assert list(statistics_by_key(keyed)) == ["b"]

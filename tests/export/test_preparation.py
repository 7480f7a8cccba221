"""The way of the observations is found from the environment; where it is unknown, the export is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_trpo import TRPO
from sb3_trpo.export.inputs import Preparation
from sb3_trpo.export.preparation import preparation_of
from tests.export.models import make_model, normalized_env
from tests.toy_envs import IMAGE, OBSERVATIONS, VECTOR, RandomEnv

FLOAT64 = spaces.Box(-1.0, 1.0, (3,), dtype=np.float64)


def found(model: TRPO, **kwargs: Any) -> Preparation:
    return preparation_of(model, **{"statistics": "auto", "channels": None, **kwargs})


def test_the_statistics_of_the_environment() -> None:
    env = normalized_env(RandomEnv(FLOAT64))
    model = make_model(env=VecMonitor(VecCheckNan(env)))
    assert found(model) == Preparation(FLOAT64, env, frozenset())
    assert found(model, statistics=None).vec_normalize is None
    other = normalized_env()
    assert found(model, statistics=other).vec_normalize is other


def test_rewards_alone_may_be_normalised() -> None:
    env = VecNormalize(DummyVecEnv([RandomEnv]), norm_obs=False)
    assert found(make_model(env=env)) == Preparation(VECTOR, None, frozenset())
    way = found(make_model(env=VecFrameStack(env, 2)))
    assert (way.space.shape, way.vec_normalize) == ((6,), None)


def test_observations_that_are_normalised_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="two VecNormalize wrappers"):
        found(make_model(env=VecNormalize(normalized_env())))


@pytest.mark.parametrize("channels", [None, "first", "last"])
@pytest.mark.parametrize("with_env", [True, False])
def test_channels_are_where_the_environment_has_them(channels: Any, with_env: bool, tmp_path: Path) -> None:
    model = make_model(policy="PaperCnnPolicy", observations="image")
    if not with_env:
        model.save(tmp_path / "model")
        model = TRPO.load(tmp_path / "model", device="cpu")
    way = found(model, channels=channels)
    last = channels == "last" or (channels is None and with_env)
    assert way.space == (IMAGE if last else spaces.Box(0, 255, (1, 36, 36), dtype=np.uint8))
    assert way.transposed == (frozenset({None}) if last else frozenset())


def test_stacked_frames_are_the_callers() -> None:
    env = VecFrameStack(DummyVecEnv([lambda: RandomEnv(IMAGE)]), 4)
    way = found(make_model(policy="PaperCnnPolicy", env=env))
    assert way.space.shape == (36, 36, 4)
    normalized = normalized_env()
    above = VecFrameStack(normalized, 2)
    with pytest.raises(ValueError, match="VecFrameStack lies between VecNormalize and the policy"):
        found(make_model(env=above))
    model = make_model(env=above)
    with pytest.raises(ValueError, match=r"statistics of shape \(3,\), but the observations have the shape \(6,\)"):
        found(model, statistics=normalized).inputs(model.observation_space)


def test_only_the_images_of_a_dict_are_transposed() -> None:
    way = found(make_model(policy="MultiInputPolicy", observations="dict"))
    assert way.transposed == {"image"}
    assert way.space == OBSERVATIONS["dict"]


def test_missing_statistics_are_refused(tmp_path: Path) -> None:
    fresh = VecNormalize(DummyVecEnv([RandomEnv]))
    with pytest.raises(ValueError, match="`vec_normalize` normalises observations, but has seen none"):
        found(make_model(env=fresh))
    model = make_model(env=normalized_env()).learn(8)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match="the model was trained with a VecNormalize, and has no environment now"):
        loaded.export_torch(tmp_path / "policy")
    loaded.export_torch(tmp_path / "policy", vec_normalize=None)
    plain = make_model().learn(8)
    plain.save(tmp_path / "plain")
    assert found(TRPO.load(tmp_path / "plain", device="cpu")).vec_normalize is None
    plain.save(tmp_path / "without", exclude=["_last_obs"])
    with pytest.raises(ValueError, match="the model may have been trained with a VecNormalize"):
        found(TRPO.load(tmp_path / "without", device="cpu"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_statistics_that_are_no_numbers_are_refused(value: float) -> None:
    env = normalized_env()
    statistics: Any = env.obs_rms
    statistics.var[1] = value
    with pytest.raises(ValueError, match="`vec_normalize` must have finite means and variances >= 0"):
        found(make_model(env=env))


def test_wrong_arguments_are_named() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="`image_channels` must be None, 'first' or 'last', not 'middle'"):
        found(model, channels="middle")
    with pytest.raises(ValueError, match="`image_channels` = 'last' needs images"):
        found(model, channels="last")
    for wrong in ("own", 3, DummyVecEnv([RandomEnv])):
        with pytest.raises(TypeError, match="`vec_normalize` must be a VecNormalize, None or 'auto', not"):
            found(model, statistics=wrong)


def test_a_transposed_environment_without_a_change() -> None:
    env = VecTransposeImage(DummyVecEnv([lambda: RandomEnv(spaces.Box(0, 255, (1, 36, 36), dtype=np.uint8))]), skip=True)
    assert found(make_model(policy="PaperCnnPolicy", env=env)).transposed == frozenset()

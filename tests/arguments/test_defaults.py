import inspect
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trpo import SB3_CONTRIB_DEFAULTS, TRPO, VineTRPO
from sb3_trpo.arguments.defaults import default_fisher_fraction, default_n_steps
from tests.toy_envs import RandomEnv


@pytest.mark.parametrize(("n_envs", "n_steps"), [(1, 1024), (2, 512), (3, 384), (7, 256), (8, 128), (16, 64), (100, 64)])
def test_a_rollout_is_a_multiple_of_the_minibatch(n_envs: int, n_steps: int) -> None:
    assert default_n_steps(n_envs) == n_steps
    assert n_steps * n_envs % 128 == 0


def test_n_steps_is_a_plain_number() -> None:
    assert TRPO("MlpPolicy", "CartPole-v1").n_steps == 1024
    model = TRPO("MlpPolicy", DummyVecEnv([RandomEnv] * 8))
    assert type(model.n_steps) is int
    assert model.n_steps == model.rollout_buffer.buffer_size == 128
    assert VineTRPO("MlpPolicy", "CartPole-v1").n_steps == 1024


def test_a_larger_number_of_environments_keeps_the_saved_rollout_length(tmp_path: Any) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=64).save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model", DummyVecEnv([RandomEnv] * 2)).n_steps == 64


@pytest.mark.parametrize(
    ("space", "target_kl", "cg_damping"),
    [
        (spaces.Discrete(2_000), 0.01, 0.15),
        (spaces.Box(-1, 1, (1,)), 0.01, 0.15),
        (spaces.Box(-1, 1, (2, 2)), 0.02, 0.6),
        (spaces.Box(-1, 1, (17,)), 0.03, 2.55),
        (spaces.MultiDiscrete([5, 7, 9]), 0.015, 0.45),
        (spaces.MultiBinary(9), 0.03, 1.35),
    ],
)
def test_bound_and_damping_grow_with_the_action_dimensions(
    space: spaces.Space[Any], target_kl: float, cg_damping: float
) -> None:
    model = TRPO("MlpPolicy", RandomEnv(action_space=space), n_steps=8, batch_size=8)
    assert (model.target_kl, model.cg_damping) == (target_kl, cg_damping)
    assert (
        TRPO("MlpPolicy", RandomEnv(action_space=space), n_steps=8, batch_size=8, target_kl="lin_0.3").target_kl == "lin_0.3"
    )


def log_std(model: TRPO) -> float:
    values = list(set(model.policy.log_std.flatten().tolist()))
    assert len(values) == 1
    assert model.policy._get_constructor_parameters()["log_std_init"] == pytest.approx(values[0])
    return float(values[0])


def test_gaussians_begin_with_the_default_deviation_unless_one_is_chosen() -> None:
    kwargs: dict[str, Any] = {"n_steps": 8, "batch_size": 8}
    model = TRPO("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **kwargs)
    assert log_std(model) == pytest.approx(-0.5 * math.log(2.0))
    assert model.policy_kwargs == {"net_arch": [8]}
    assert log_std(TRPO("MlpPolicy", RandomEnv(), policy_kwargs={"log_std_init": 0.5}, **kwargs)) == 0.5
    assert log_std(TRPO("MlpPolicy", RandomEnv(), use_sde=True, **kwargs)) == 0.0
    assert log_std(TRPO(ActorCriticPolicy, RandomEnv(), **kwargs)) == log_std(model)
    assert not hasattr(TRPO("MlpPolicy", RandomEnv(action_space=spaces.Discrete(2)), **kwargs).policy, "log_std")


@pytest.mark.parametrize("d", [1, 6, 17])
def test_the_first_noise_has_a_squared_norm_of_one(d: int) -> None:
    policy = TRPO("MlpPolicy", RandomEnv(action_space=spaces.Box(-1, 1, (d,))), n_steps=8, batch_size=8).policy
    assert policy.log_std.exp().square().sum().item() == pytest.approx(1.0)


def test_a_custom_policy_keeps_its_own_deviation() -> None:
    class Custom(ActorCriticPolicy):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"log_std_init": 0.25, **kwargs})

    assert log_std(TRPO(Custom, RandomEnv(), n_steps=8, batch_size=8)) == 0.25


def test_a_loaded_policy_keeps_its_deviation(tmp_path: Any) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8, policy_kwargs={"log_std_init": 0.5})
    with th.no_grad():
        model.policy.log_std.fill_(0.125)
    model.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model").policy.log_std.tolist() == [0.125, 0.125]


IMAGES = spaces.Box(0, 255, (36, 36, 1), np.uint8)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(-1.0, 1.0, (3,)), 1.0),
        (spaces.Box(-1.0, 1.0, (2, 3)), 1.0),
        (spaces.Discrete(3), 1.0),
        (spaces.Dict({"vector": spaces.Box(-1.0, 1.0, (3,))}), 1.0),
        (IMAGES, 0.1),
        (spaces.Box(0.0, 1.0, (1, 36, 36)), 0.1),
        (spaces.Dict({"vector": spaces.Box(-1.0, 1.0, (3,)), "image": IMAGES}), 0.1),
    ],
)
def test_the_fisher_matrix_of_images_uses_a_tenth(space: spaces.Space[Any], expected: float) -> None:
    assert default_fisher_fraction(space, 1024) == expected


@pytest.mark.parametrize(("n_transitions", "expected"), [(8, 1.0), (100, 1.0), (400, 0.25), (1000, 0.1), (10_000, 0.1)])
def test_a_small_rollout_keeps_a_hundred_images(n_transitions: int, expected: float) -> None:
    assert default_fisher_fraction(IMAGES, n_transitions) == expected


def test_the_share_of_the_fisher_matrix_is_a_plain_number(tmp_path: Any) -> None:
    policy_kwargs = {"features_extractor_class": FlattenExtractor, "share_features_extractor": True}
    env = RandomEnv(IMAGES)
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "policy_kwargs": policy_kwargs}
    assert TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8).fisher_sample_fraction == 1.0
    assert TRPO("CnnPolicy", env, **settings).fisher_sample_fraction == 1.0
    model = TRPO("CnnPolicy", env, policy_kwargs=policy_kwargs)
    assert model.fisher_sample_fraction == 0.1
    assert TRPO("CnnPolicy", env, fisher_sample_fraction=0.5, **settings).fisher_sample_fraction == 0.5
    model.fisher_sample_fraction = 0.25
    model.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model").fisher_sample_fraction == 0.25


def test_a_model_of_sb3_contrib_keeps_all_states(tmp_path: Any) -> None:
    extractor = {"features_extractor_class": FlattenExtractor}
    sb3_contrib.TRPO("CnnPolicy", RandomEnv(IMAGES), n_steps=8, batch_size=8, policy_kwargs=extractor).save(tmp_path / "model")
    with pytest.warns(UserWarning, match="averages the KL"):
        model = TRPO.load(tmp_path / "model", RandomEnv(IMAGES))
    assert model.fisher_sample_fraction == 1.0


def test_sb3_contribs_defaults_are_those_of_its_class() -> None:
    theirs = {name: argument.default for name, argument in inspect.signature(sb3_contrib.TRPO).parameters.items()}
    ours = {name: argument.default for name, argument in inspect.signature(TRPO).parameters.items()}
    new = {"policy_kwargs", "normalize_observations", "normalize_returns", "scale_target_kl", "fisher_sample_fraction"}
    assert {name: value for name, value in SB3_CONTRIB_DEFAULTS.items() if name not in new} == {
        name: theirs[name] for name in SB3_CONTRIB_DEFAULTS.keys() - new
    }
    assert all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys() - SB3_CONTRIB_DEFAULTS.keys())
    model = TRPO("MlpPolicy", gym.make("Pendulum-v1"), **SB3_CONTRIB_DEFAULTS)
    assert (model.n_steps, model.target_kl, model.normalize_observations, log_std(model)) == (2048, 0.01, False, 0.0)

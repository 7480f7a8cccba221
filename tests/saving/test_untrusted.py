"""Saved models of SB3, sb3-contrib and this package are read without running them."""

import io
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch as th
from gymnasium import spaces
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule

from sb3_trpo import TRPO, PaperCnnPolicy, VineTRPO
from sb3_trpo.reading.weights import read_weights
from sb3_trpo.saving.untrusted import PlainCopy, plain_copy, read_model
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

OLD = Path(__file__).parent / "models" / "sb3"
"""Files of SB3 and sb3-contrib 2.0.0 and 2.6.0."""
SMALL: dict[str, Any] = {"n_steps": 16, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
LSTM: dict[str, Any] = {**SMALL, "policy_kwargs": {"net_arch": [4], "lstm_hidden_size": 4}}
CLASSES: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO,
    "a2c": A2C,
    "trpo": sb3_contrib.TRPO,
    "recurrent_ppo": sb3_contrib.RecurrentPPO,
    "maskable_ppo": sb3_contrib.MaskablePPO,
}
MAKERS: dict[str, Callable[[], BaseAlgorithm]] = {
    "ppo": lambda: PPO("MlpPolicy", RandomEnv(), batch_size=16, **SMALL),
    "a2c": lambda: A2C("MlpPolicy", RandomEnv(), **SMALL),
    "trpo": lambda: sb3_contrib.TRPO("MlpPolicy", RandomEnv(action_space=spaces.Discrete(3)), batch_size=16, **SMALL),
    "recurrent_ppo": lambda: sb3_contrib.RecurrentPPO("MlpLstmPolicy", RandomEnv(), batch_size=16, **LSTM),
    "maskable_ppo": lambda: sb3_contrib.MaskablePPO("MlpPolicy", InvalidActionEnvDiscrete(4, n_invalid_actions=1), **SMALL),
}


def copy_of(path: Path, cls: type[Any]) -> PlainCopy:
    with path.open("rb") as file:
        return plain_copy(*read_model(file), cls)


def weights(model: BaseAlgorithm) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def saved_weights(path: Path) -> th.Tensor:
    with zipfile.ZipFile(path) as archive:
        state = read_weights(archive.read("policy.pth"))
    return th.cat([value.flatten() for value in state.values()])


def assert_loads(name: str, path: Path) -> None:
    """Every attribute is rebuilt, no warning appears, and the copy loads."""
    copy = copy_of(path, CLASSES[name])
    with path.open("rb") as file:
        assert copy.values.keys() == read_model(file)[1].keys()
    loaded = CLASSES[name].load(copy.file, custom_objects=copy.values, device="cpu")
    assert th.equal(weights(loaded), saved_weights(path))
    if name in ("ppo", "a2c"):
        space = loaded.observation_space, loaded.action_space
        continued = TRPO.from_ppo(path, RandomEnv(*space), batch_size=16, n_steps=16, device="cpu")
        assert th.equal(weights(continued), saved_weights(path))
    elif name == "trpo":
        assert th.equal(weights(TRPO.load(path, device="cpu")), saved_weights(path))


@pytest.mark.parametrize("name", MAKERS)
def test_files_of_today(name: str, tmp_path: Path) -> None:
    MAKERS[name]().learn(16).save(tmp_path / "model.zip")
    assert_loads(name, tmp_path / "model.zip")


@pytest.mark.parametrize("path", sorted(OLD.glob("*.zip")), ids=lambda path: path.stem)
def test_files_of_earlier_versions(path: Path) -> None:
    assert_loads(path.stem.rpartition("_")[0], path)


def test_all_earlier_versions_are_there() -> None:
    assert {path.name for path in OLD.glob("*.zip")} == {f"{n}_{v}.zip" for n in CLASSES for v in ("2.0.0", "2.6.0")}


def test_earlier_schedules_keep_their_numbers() -> None:
    for version, learning_rate in (("2.0.0", 0.0003), ("2.6.0", 0.0003)):
        values = copy_of(OLD / f"ppo_{version}.zip", PPO).values
        assert values["lr_schedule"](0.5) == learning_rate
        assert values["clip_range"](1.0) == 0.2


@pytest.mark.parametrize(
    ("observation_space", "action_space"), [*((name, "box") for name in OBSERVATIONS), *(("vector", name) for name in ACTIONS)]
)
def test_every_attribute_is_as_sb3_loads_it(observation_space: str, action_space: str, tmp_path: Path) -> None:
    env = RandomEnv(OBSERVATIONS[observation_space], ACTIONS[action_space])
    multi = isinstance(env.observation_space, spaces.Dict)
    model = TRPO("MultiInputPolicy" if multi else "MlpPolicy", env, target_kl="lin_0.01", batch_size=16, seed=1, **SMALL)
    model.learn(16).save(tmp_path / "model")
    safe, theirs = TRPO.load(tmp_path / "model"), TRPO.load(tmp_path / "model", trusted=True)
    assert vars(safe).keys() == vars(theirs).keys()
    for name, value in vars(theirs).items():
        assert type(vars(safe)[name]) is type(value), name
        if isinstance(value, bool | int | float | str | spaces.Space | type | deque | np.ndarray):
            np.testing.assert_equal(vars(safe)[name], value)
    assert safe.policy_kwargs == theirs.policy_kwargs
    assert np.array_equal(safe.action_space.sample(), theirs.action_space.sample())  # the generators have the same state
    assert th.equal(safe.observation_moments.mean, theirs.observation_moments.mean)
    assert th.equal(weights(safe), weights(theirs))


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"activation_fn": th.nn.ReLU, "optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}},
        {"features_extractor_class": FlattenExtractor, "net_arch": {"pi": [4], "vf": [3]}, "ortho_init": False},
        {"activation_fn": th.nn.SiLU, "optimizer_class": th.optim.AdamW, "log_std_init": -1.0},
    ],
)
def test_known_classes_need_no_trust(policy_kwargs: dict[str, Any], tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, policy_kwargs=policy_kwargs)
    model.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model").policy_kwargs == policy_kwargs


class OwnPolicy(ActorCriticPolicy):
    """A custom policy."""


class OwnExtractor(FlattenExtractor):
    """A custom extractor."""


class OwnBuffer(RolloutBuffer):
    """A custom buffer."""


@pytest.mark.parametrize("cls", [TRPO, VineTRPO])
def test_a_custom_policy_is_needed(cls: type[TRPO], tmp_path: Path) -> None:
    model = cls(OwnPolicy, "CartPole-v1", batch_size=16, **SMALL)
    model.save(tmp_path / "model")
    message = (
        r"model is not loaded: `policy_class` in the file cannot be rebuilt without running code of the file: it names "
        r"tests\.saving\.test_untrusted\.OwnPolicy, which is none of the known classes\. The model needs it: pass "
        r"`custom_objects=\{'policy_class': …\}` or, if you trust whoever made the file, `trusted=True`"
    )
    with pytest.raises(ValueError, match=message):
        cls.load(tmp_path / "model")
    ways: list[dict[str, Any]] = [{"custom_objects": {"policy_class": OwnPolicy}}, {"trusted": True}]
    for kwargs in ways:
        loaded = cls.load(tmp_path / "model", **kwargs)
        assert type(loaded.policy) is OwnPolicy
        assert th.equal(weights(loaded), weights(model))


def test_a_custom_extractor_is_needed(tmp_path: Path) -> None:
    policy_kwargs = {"features_extractor_class": OwnExtractor}
    for algorithm in (TRPO, PPO):
        model = algorithm("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, policy_kwargs=policy_kwargs)
        model.save(tmp_path / "model")
        load: Any = (
            TRPO.load if algorithm is TRPO else lambda path, **kw: TRPO.from_ppo(path, RandomEnv(), batch_size=16, **kw)
        )
        with pytest.raises(ValueError, match=r"`policy_kwargs` .* it names tests\.saving\.test_untrusted\.OwnExtractor"):
            load(tmp_path / "model")
        for kwargs in ({"custom_objects": {"policy_kwargs": policy_kwargs}}, {"trusted": True}):
            assert type(load(tmp_path / "model", **kwargs).policy.features_extractor) is OwnExtractor


def test_a_class_that_the_file_contains_is_not_made(tmp_path: Path) -> None:
    class Local(ActorCriticPolicy):
        pass

    TRPO(Local, RandomEnv(), batch_size=16, **SMALL).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"`policy_class` .* it would call cloudpickle\.cloudpickle\._make_skeleton_class"):
        TRPO.load(tmp_path / "model")
    assert type(TRPO.load(tmp_path / "model", custom_objects={"policy_class": Local}).policy) is Local


def test_what_is_not_needed_is_left_out_with_a_warning(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), batch_size=16, rollout_buffer_class=OwnBuffer, **SMALL)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"`rollout_buffer_class` .*OwnBuffer.* left out.*'rollout_buffer_class': …") as seen:
        loaded = TRPO.load(tmp_path / "model", RandomEnv())
    assert [warning.filename for warning in seen] == [__file__]
    assert type(loaded.learn(16).rollout_buffer) is RolloutBuffer
    given = TRPO.load(tmp_path / "model", RandomEnv(), custom_objects={"rollout_buffer_class": OwnBuffer})
    assert type(given.learn(16).rollout_buffer) is OwnBuffer
    assert type(TRPO.load(tmp_path / "model", RandomEnv(), rollout_buffer_class=OwnBuffer).rollout_buffer) is OwnBuffer


def test_a_lambda_as_a_schedule(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), batch_size=16, target_kl=lambda progress: 0.02 * progress, **SMALL)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"`target_kl` .* contains the code of the function tests\.saving\.test_untrusted"):
        assert TRPO.load(tmp_path / "model").target_kl == 0.01  # the default
    given = LinearSchedule(0.02, 0.0, 1.0)
    assert TRPO.load(tmp_path / "model", custom_objects={"target_kl": given}).target_kl is given
    assert TRPO.load(tmp_path / "model", target_kl=0.01).target_kl == 0.01
    trusted = TRPO.load(tmp_path / "model", trusted=True)
    assert callable(trusted.target_kl)
    assert trusted.target_kl(0.5) == 0.01


def test_a_schedule_that_trpo_does_not_take_over_causes_no_warning(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", RandomEnv(), batch_size=16, learning_rate=lambda _: 0.1, clip_range=lambda _: 0.1, **SMALL)
    model.save(tmp_path / "model")
    assert th.equal(weights(TRPO.from_ppo(tmp_path / "model", RandomEnv(), batch_size=16)), weights(model))


def test_from_ppo_refuses_custom_objects_that_belong_to_the_weights(tmp_path: Path) -> None:
    PPO("MlpPolicy", RandomEnv(), batch_size=16, **SMALL).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"`action_space` = .* cannot change with saved weights"):
        TRPO.from_ppo(tmp_path / "model", custom_objects={"action_space": spaces.Discrete(2)})


def test_the_file_is_read_once_for_checks_and_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3 reads the copy in memory: the file may have changed since."""
    seen: list[Any] = []
    load = TRPO.__mro__[2].load.__func__  # type: ignore[attr-defined]

    def remember(cls: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(path)
        return load(cls, path, *args, **kwargs)

    TRPO("MlpPolicy", RandomEnv(), batch_size=16, **SMALL).save(tmp_path / "model")
    monkeypatch.setattr(BaseAlgorithm, "load", classmethod(remember))
    TRPO.load(tmp_path / "model")
    assert [type(path) for path in seen] == [io.BytesIO]


def test_custom_objects_must_be_a_dict(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), batch_size=16, **SMALL).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"`custom_objects` must be a dict or None, not \['seed'\]"):
        TRPO.load(tmp_path / "model", custom_objects=["seed"])  # type: ignore[arg-type]


def test_a_model_of_this_package_can_be_given_as_policy_name(tmp_path: Path) -> None:
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    TRPO("PaperCnnPolicy", env, n_steps=8, batch_size=8).save(tmp_path / "model")
    assert type(TRPO.load(tmp_path / "model").policy) is PaperCnnPolicy

"""Saved models interchange with sb3-contrib's TRPO, and PPO's policies carry over."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch as th
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from sb3_trpo import TRPO, CnnPolicy
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.policies.image_networks import NormalizedCNN
from tests.toy_envs import ACTIONS, OBSERVATIONS, VECTOR, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0}


def weights(model: BaseAlgorithm) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def act(model: BaseAlgorithm) -> np.ndarray:
    return np.asarray(model.predict(np.full((4, *VECTOR.shape), 0.3, dtype=np.float32), deterministic=True)[0])


@pytest.mark.parametrize("actions", ACTIONS)
def test_saved_and_loaded_model_is_the_same(tmp_path: Path, actions: str) -> None:
    env = RandomEnv(action_space=ACTIONS[actions])
    model = TRPO("MlpPolicy", env, cg_tol=0.05, chunk_size=50, ent_coef=0.01, **SMALL).learn(128)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", env)
    assert th.equal(weights(loaded), weights(model))
    assert (loaded.cg_tol, loaded.chunk_size, loaded.ent_coef, loaded.num_timesteps) == (0.05, 50, 0.01, 128)
    assert loaded.policy.optimizer.state_dict()["state"].keys() == model.policy.optimizer.state_dict()["state"].keys()
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 192


def test_model_loads_from_an_open_file() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    assert th.equal(weights(TRPO.load(file)), weights(model))


@pytest.mark.parametrize("use_sde", [False, True])
def test_sb3_contrib_loads_ours_and_trains_on(tmp_path: Path, use_sde: bool) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), use_sde=use_sde, **SMALL).learn(128)
    model.save(tmp_path / "model")
    theirs = sb3_contrib.TRPO.load(tmp_path / "model", RandomEnv())
    assert th.equal(weights(theirs), weights(model))
    np.testing.assert_array_equal(act(theirs), act(model))
    theirs.learn(128, reset_num_timesteps=False)
    assert theirs.num_timesteps == 256
    assert not th.equal(weights(theirs), weights(model))


@pytest.mark.parametrize("use_sde", [False, True])
def test_ours_loads_sb3_contribs_and_trains_on(tmp_path: Path, use_sde: bool) -> None:
    theirs = sb3_contrib.TRPO("MlpPolicy", RandomEnv(), target_kl=0.01, use_sde=use_sde, **SMALL).learn(128)
    theirs.save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"over the 2 action dimensions.*target_kl=0.02 and cg_damping=0.2"):
        model = TRPO.load(tmp_path / "model", RandomEnv())
    assert th.equal(weights(model), weights(theirs))
    np.testing.assert_array_equal(act(theirs), act(model))
    model.learn(128, reset_num_timesteps=False)
    assert model.num_timesteps == 256
    assert model.max_grad_norm is None


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete"])
def test_no_warning_if_both_kls_mean_the_same(tmp_path: Path, actions: str) -> None:
    theirs = sb3_contrib.TRPO("MlpPolicy", RandomEnv(action_space=ACTIONS[actions]), **SMALL)
    theirs.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model").target_kl == theirs.target_kl


def test_warning_names_only_settings_that_were_not_given(tmp_path: Path) -> None:
    sb3_contrib.TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"trust region, pass cg_damping=0.2\."):
        TRPO.load(tmp_path / "model", target_kl=0.02)


def test_no_warning_if_both_settings_are_given(tmp_path: Path) -> None:
    sb3_contrib.TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model", target_kl=0.02, cg_damping=0.2).target_kl == 0.02


@pytest.mark.parametrize("target_kl", ["lin_0.02", LinearSchedule(0.02, 0.01, 1.0)])
def test_a_schedule_survives(tmp_path: Path, target_kl: Any) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl=target_kl, **SMALL)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", RandomEnv())
    assert type(loaded.target_kl) is type(target_kl)
    assert make_schedule("target_kl", loaded.target_kl)(0.5) == make_schedule("target_kl", model.target_kl)(0.5) < 0.02


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_load_refuses_another_algorithm_and_points_to_from_ppo(tmp_path: Path, algorithm: type[BaseAlgorithm]) -> None:
    algorithm("MlpPolicy", RandomEnv(), n_steps=64).save(tmp_path / "model")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"does not hold a TRPO model.*TRPO\.from_ppo"):
        TRPO.load(tmp_path / "model")


def test_load_refuses_a_file_that_is_not_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no model")
    for load in (TRPO.load, TRPO.from_ppo):
        with pytest.raises(ValueError, match=r"text.zip is damaged or no saved model: File is not a zip file"):
            load(tmp_path / "text.zip")


@pytest.mark.parametrize("algorithm", [TRPO, PPO])
def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path, algorithm: Any) -> None:
    path = tmp_path / "model.zip"
    algorithm("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, policy_kwargs={"net_arch": [4]}).save(path)
    whole = path.read_bytes()
    for length in [0, 1, len(whole) - 1, *range(50, len(whole), 997)]:
        for load in (TRPO.load, TRPO.from_ppo):
            with pytest.raises(ValueError, match="is damaged or no saved model"):
                load(io.BytesIO(whole[:length]))
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model.zip is damaged or no saved model"):
            TRPO.load(path)


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("data", b"{", r"its entry 'data' is not JSON"),
        ("data", b"\xff\xfe", r"its entry 'data' is not JSON"),
        ("data", b"[]", r"its entry 'data' is not a JSON object"),
        ("data", None, r"it has no entry 'data'"),
        ("policy.pth", None, r"it has no entry 'policy\.pth'"),
        ("policy.pth", 900, r"torch cannot read 'policy\.pth'"),
        ("policy.pth", b"", r"torch cannot read 'policy\.pth'"),
        ("policy.pth", b"no weights", r"torch cannot read 'policy\.pth'"),
        ("policy.optimizer.pth", None, r"torch cannot read 'policy\.optimizer\.pth'"),
        ("policy.optimizer.pth", 300, r"torch cannot read 'policy\.optimizer\.pth'"),
    ],
)
@pytest.mark.parametrize("algorithm", [TRPO, PPO])
def test_a_file_with_a_damaged_entry_is_damaged(
    tmp_path: Path, algorithm: Any, entry: str, content: bytes | int | None, message: str
) -> None:
    algorithm("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16).save(tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole.zip") as whole, zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name in whole.namelist():
            own = whole.read(name)
            if name == entry:
                if content is None:
                    continue
                own = own[:content] if isinstance(content, int) else content
            archive.writestr(name, own)
    load = TRPO.load if algorithm is TRPO else TRPO.from_ppo
    with pytest.raises(ValueError, match=rf"model\.zip is damaged or no saved model: {message}"):
        load(tmp_path / "model.zip")


def test_a_file_with_altered_bytes_is_damaged(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    model.save(tmp_path / "model")
    content = bytearray((tmp_path / "model.zip").read_bytes())
    weight = model.policy.action_net.weight.detach().numpy().tobytes()  # type: ignore[operator]
    content[content.index(weight)] ^= 1
    with pytest.raises(ValueError, match=r"the sum of its entry 'policy\.pth' is wrong"):
        TRPO.load(io.BytesIO(bytes(content)))


@pytest.mark.parametrize("algorithm", [TRPO, PPO])
def test_a_folder_of_the_same_name_is_not_in_the_way(tmp_path: Path, algorithm: Any) -> None:
    model = algorithm("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16)
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "model", str(tmp_path / "model")):
        for load in (TRPO.load, TRPO.from_ppo):
            with pytest.raises(IsADirectoryError, match=r"is a folder, not a saved model, and there is no file .*model\.zip"):
                load(path)
    model.save(tmp_path / "model")
    for path in (tmp_path / "model", str(tmp_path / "model")):
        loaded = TRPO.load(path) if algorithm is TRPO else TRPO.from_ppo(path, RandomEnv(), batch_size=16)
        assert th.equal(weights(loaded), weights(model))


FIXED: dict[str, Any] = {
    "n_envs": (1, 4),
    "use_sde": (False, True),
    "policy_class": ("MlpPolicy", "CnnPolicy"),
    "observation_space": (VECTOR, OBSERVATIONS["matrix"]),
    "action_space": (ACTIONS["box"], ACTIONS["discrete"]),
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("env", [None, RandomEnv()])
def test_load_refuses_to_change_what_belongs_to_the_weights(name: str, env: RandomEnv | None, tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    same, changed = FIXED[name]
    assert TRPO.load(tmp_path / "model", env=env, **{name: same}).num_timesteps == 0
    with pytest.raises(ValueError, match=rf"`{name}` = .* cannot change with saved weights: .* is .*; leave it out"):
        TRPO.load(tmp_path / "model", env=env, **{name: changed})


@pytest.mark.parametrize("where", ["path", "file"])
def test_load_takes_the_policy_kwargs_that_the_model_was_made_with(tmp_path: Path, where: str) -> None:
    kwargs = {"net_arch": [8]}
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    TRPO("CnnPolicy", env, n_steps=8, batch_size=8, policy_kwargs=kwargs).save(tmp_path / "model")
    with (tmp_path / "model.zip").open("rb") as file:
        path: Any = file if where == "file" else tmp_path / "model"
        model = TRPO.load(path, policy_kwargs=kwargs)
        assert isinstance(model.policy.features_extractor, NormalizedCNN)
        with pytest.raises(ValueError, match="policy kwargs do not equal"):
            TRPO.load(path, policy_kwargs={"net_arch": [9]})


def test_load_refuses_an_unknown_argument(tmp_path: Path) -> None:
    class Mine(TRPO):
        def __init__(self, *args: Any, mine: int = 0, **kwargs: Any) -> None:
            self.mine = mine
            super().__init__(*args, **kwargs)

    Mine("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    with pytest.raises(TypeError, match="TRPO has no argument 'n_step'"):
        TRPO.load(tmp_path / "model", n_step=8)
    assert TRPO.load(tmp_path / "model", n_steps=32, mine=1).n_steps == 32  # an attribute of the model
    assert Mine.load(tmp_path / "model", mine=1).mine == 1


def test_load_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TRPO.load(tmp_path / "nothing")


@pytest.mark.parametrize("where", ["model", "path", "file"])
def test_from_ppo_takes_over_policy_and_settings(tmp_path: Path, where: str) -> None:
    policy_kwargs = {"net_arch": [16], "activation_fn": th.nn.ReLU}
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64, gamma=0.9, gae_lambda=0.8, policy_kwargs=policy_kwargs, seed=1).learn(128)
    source: Any = ppo
    if where != "model":
        ppo.save(tmp_path / "ppo")
        source = tmp_path / "ppo" if where == "path" else io.BytesIO((tmp_path / "ppo.zip").read_bytes())
    model = TRPO.from_ppo(source, RandomEnv(), batch_size=16)
    assert th.equal(weights(model), weights(ppo))
    np.testing.assert_array_equal(act(model), act(ppo))
    assert (model.n_steps, model.gamma, model.gae_lambda, model.batch_size) == (64, 0.9, 0.8, 16)
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 192


def test_from_ppo_of_a_trpo_takes_over_all_settings() -> None:
    settings: dict[str, Any] = {"target_kl": 0.003, "cg_damping": 2.0, "fisher_sample_fraction": 0.5, "clipped_gaussian": True}
    model = TRPO.from_ppo(TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16, learning_rate=0.01, **settings))
    assert {name: getattr(model, name) for name in settings} == settings
    assert (model.batch_size, model.learning_rate) == (16, 0.01)
    model.learn(64)


def test_from_ppo_keeps_frozen_parameters_frozen() -> None:
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64)
    ppo.policy.mlp_extractor.policy_net.requires_grad_(False)
    model = TRPO.from_ppo(ppo, batch_size=16)
    frozen = [name for name, parameter in model.policy.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"mlp_extractor.policy_net.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]


def test_a_file_without_some_settings_still_loads(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).save(tmp_path / "model", exclude=["cg_max_steps", "cg_tol"])
    model = TRPO.load(tmp_path / "model", RandomEnv())
    assert (model.cg_max_steps, model.cg_tol) == (10, 0.005)
    model.learn(64)


def test_from_ppo_keeps_the_models_environment() -> None:
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64)
    assert TRPO.from_ppo(ppo, batch_size=16).get_env() is ppo.get_env()


@pytest.mark.parametrize("kwargs", [{"policy_kwargs": {"net_arch": [8]}}, {"use_sde": True}])
def test_from_ppo_refuses_arguments_that_make_another_policy(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="weights do not fit the policy that the arguments make"):
        TRPO.from_ppo(PPO("MlpPolicy", RandomEnv(), n_steps=64), batch_size=16, **kwargs)


def test_from_ppo_keeps_a_shared_extractor() -> None:
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8)
    model = TRPO.from_ppo(ppo, batch_size=8, n_critic_updates=1)
    assert model.policy.share_features_extractor is True
    observation = env.observation_space.sample()
    assert model.predict(observation, deterministic=True)[0] == ppo.predict(observation, deterministic=True)[0]
    model.learn(8)


@pytest.mark.parametrize("kwargs", [{}, {"policy_kwargs": {"share_features_extractor": True}}])
@pytest.mark.parametrize("policy", ["CnnPolicy", CnnPolicy])
def test_extractors_are_separate_by_default(policy: Any, kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    model = TRPO(policy, env, n_steps=8, batch_size=8, **kwargs)
    assert model.policy.share_features_extractor is bool(kwargs)
    model.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model").policy.share_features_extractor is bool(kwargs)
    theirs = sb3_contrib.TRPO("CnnPolicy", env, n_steps=8, batch_size=8)
    theirs.save(tmp_path / "theirs")
    assert TRPO.load(tmp_path / "theirs").policy.share_features_extractor is True


def test_from_ppo_takes_over_gsde() -> None:
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64, use_sde=True, sde_sample_freq=4)
    model = TRPO.from_ppo(ppo, batch_size=16).learn(64)
    assert (model.use_sde, model.sde_sample_freq) == (True, 4)


def test_from_ppo_without_an_environment_is_refused(tmp_path: Path) -> None:
    PPO("MlpPolicy", RandomEnv(), n_steps=64).save(tmp_path / "ppo")
    with pytest.raises(ValueError, match="needs an environment"):
        TRPO.from_ppo(tmp_path / "ppo")


@pytest.mark.parametrize("algorithm", [sb3_contrib.RecurrentPPO, SAC])
def test_from_ppo_refuses_models_that_trpo_cannot_train(tmp_path: Path, algorithm: Any) -> None:
    recurrent = algorithm is sb3_contrib.RecurrentPPO
    model = algorithm("MlpLstmPolicy" if recurrent else "MlpPolicy", RandomEnv())
    with pytest.raises(ValueError, match="neither recurrence nor masks"):
        TRPO.from_ppo(model)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="neither recurrence nor masks" if recurrent else "does not hold a PPO model"):
        TRPO.from_ppo(tmp_path / "model", RandomEnv())


def test_from_ppo_takes_an_environment_id() -> None:
    ppo = PPO("MlpPolicy", "CartPole-v1", n_steps=64)
    assert TRPO.from_ppo(ppo, "CartPole-v1", batch_size=16).learn(64).num_timesteps == 64


def test_from_ppo_refuses_an_environment_with_other_spaces() -> None:
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        TRPO.from_ppo(ppo, RandomEnv(OBSERVATIONS["matrix"]))


def test_load_takes_every_argument_of_the_constructor_that_a_model_keeps(tmp_path: Path) -> None:
    env = RandomEnv()
    TRPO("MlpPolicy", env, **SMALL).learn(64).save(tmp_path / "model")
    changed: dict[str, Any] = {"stats_window_size": 7, "rollout_buffer_kwargs": None, "fisher_sample_fraction": 0.5, "seed": 3}
    model = TRPO.load(tmp_path / "model", env=env, **changed).learn(64)
    assert model.ep_info_buffer is not None
    assert model.ep_info_buffer.maxlen == 7
    assert model.rollout_buffer_kwargs == {}
    assert model.fisher_sample_fraction == 0.5


CARTPOLE_MAKERS: dict[str, Callable[[Path], TRPO]] = {
    "load": lambda path: TRPO.load(path, "CartPole-v1"),
    "set_env": lambda path: with_env(TRPO.load(path)),
}


def with_env(model: TRPO) -> TRPO:
    model.set_env("CartPole-v1")
    return model


@pytest.mark.parametrize("maker", CARTPOLE_MAKERS)
def test_an_environment_may_be_given_by_its_id(maker: str, tmp_path: Path) -> None:
    TRPO("MlpPolicy", "CartPole-v1", **SMALL).save(tmp_path / "model")
    model = CARTPOLE_MAKERS[maker](tmp_path / "model").learn(64)
    assert model.env is not None
    assert model.env.get_attr("spec")[0].id == "CartPole-v1"


def test_an_id_of_an_environment_with_other_spaces_is_refused(tmp_path: Path) -> None:
    TRPO("MlpPolicy", "CartPole-v1", **SMALL).save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        TRPO.load(tmp_path / "model", "Pendulum-v1")


@pytest.mark.parametrize("way", ["kwargs", "custom_objects"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("use_sde", True), ("n_envs", 2), ("observation_space", OBSERVATIONS["matrix"]), ("action_space", ACTIONS["discrete"])],
)
def test_what_belongs_to_the_weights_cannot_change(way: str, name: str, value: Any, tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    model.save(tmp_path / "model")
    ways: dict[str, Callable[[Any], TRPO]] = {
        "kwargs": lambda given: TRPO.load(tmp_path / "model", **{name: given}),
        "custom_objects": lambda given: TRPO.load(tmp_path / "model", custom_objects={name: given, "gamma": 0.5}),
    }
    with pytest.raises(ValueError, match=rf"`{name}` = .* cannot change with saved weights: that of the file is "):
        ways[way](value)
    loaded = ways[way](getattr(model, name))
    assert getattr(loaded, name) == getattr(model, name)
    assert loaded.gamma == (0.99 if way == "kwargs" else 0.5)


def test_custom_objects_replace_what_cannot_be_read(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive, zipfile.ZipFile(tmp_path / "unreadable.zip", "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "data":
                data = json.loads(content)
                for attribute in ("observation_space", "policy_class"):  # their classes are in a module that is missing
                    data[attribute][":serialized:"] = base64.b64encode(b"cmissing_module\nMissing\n.").decode()
                content = json.dumps(data).encode()
            changed.writestr(name, content)
    given = {"observation_space": model.observation_space, "policy_class": type(model.policy)}
    loaded = TRPO.load(tmp_path / "unreadable.zip", custom_objects=given)
    assert th.equal(weights(loaded), weights(model))


@pytest.mark.parametrize("name", ["unsupported", "monitor_wrapper", "support_multi_env", "_init_setup_model"])
def test_load_refuses_arguments_that_no_model_keeps(name: str, tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    with pytest.raises(TypeError, match=f"TRPO has no argument '{name}'"):
        TRPO.load(tmp_path / "model", **{name: 1})  # type: ignore[arg-type]

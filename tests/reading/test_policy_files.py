"""Policies saved alone and statistics of VecNormalize load without running anything."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy, load_policy, load_vec_normalize, policies
from sb3_trpo.policies import CnnLstmPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy, MlpLstmPolicy, MultiInputLstmPolicy
from sb3_trpo.reading.trust import all_files_trusted
from tests.reading.payloads import torch_file, touching
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
DICT = spaces.Dict({"image": IMAGE, "vector": OBSERVATIONS["vector"]})
POLICIES: dict[str, tuple[type[ActorCriticPolicy], spaces.Space[Any]]] = {
    "mlp": (MlpPolicy, OBSERVATIONS["vector"]),
    "cnn": (CnnPolicy, IMAGE),
    "paper cnn": (PaperCnnPolicy, IMAGE),
    "dict": (MultiInputPolicy, DICT),
    "masks": (MaskableMlpPolicy, OBSERVATIONS["vector"]),
    "masks and dict": (MaskableMultiInputPolicy, DICT),
    "memory": (MlpLstmPolicy, OBSERVATIONS["vector"]),
    "memory and images": (CnnLstmPolicy, IMAGE),
    "memory and dict": (MultiInputLstmPolicy, DICT),
}
OWN = sorted(name for name in policies.__all__ if name.endswith("Policy") and name != "MlpPolicy")  # which is SB3's class


@pytest.mark.parametrize("where", ["path", "str", "file"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_as_sb3_loads_it(name: str, where: str, tmp_path: Path) -> None:
    cls, observations = POLICIES[name]
    policy = cls(observations, ACTIONS["box"], lambda _: 0.1, activation_fn=th.nn.ReLU)
    policy.save(str(tmp_path / "policy.pt"))
    path: Any = {"path": tmp_path / "policy.pt", "str": str(tmp_path / "policy.pt")}.get(where)
    path = path or io.BytesIO((tmp_path / "policy.pt").read_bytes())
    loaded = load_policy(cls, path, "cpu")
    assert type(loaded) is cls
    assert loaded._get_constructor_parameters().keys() == policy._get_constructor_parameters().keys()
    for key, value in policy.state_dict().items():
        assert th.equal(loaded.state_dict()[key], value)
    trusted = load_policy(cls, str(tmp_path / "policy.pt"), "cpu", trusted=True)
    assert repr(trusted) == repr(loaded)


@pytest.mark.parametrize("name", OWN)
def test_the_load_of_no_own_policy_runs_the_file(name: str, tmp_path: Path) -> None:
    file = io.BytesIO(torch_file({"state_dict": {}, "data": {"net_arch": touching(tmp_path / "canary")}}))
    with pytest.raises(ValueError, match=r"`data\['net_arch'\]` cannot be rebuilt without running it"):
        getattr(policies, name).load(file)
    assert not (tmp_path / "canary").exists()


def test_a_policy_of_another_class_is_named(tmp_path: Path) -> None:
    MlpLstmPolicy(OBSERVATIONS["vector"], ACTIONS["box"], lambda _: 0.1).save(str(tmp_path / "policy.pt"))
    with pytest.raises(ValueError, match=r"policy\.pt does not hold a CnnPolicy: .*'lstm_hidden_size'"):
        CnnPolicy.load(tmp_path / "policy.pt")


class OwnExtractor(FlattenExtractor):
    """A custom extractor."""


def test_a_custom_class_is_passed(tmp_path: Path) -> None:
    policy = CnnPolicy(IMAGE, ACTIONS["box"], lambda _: 0.1, features_extractor_class=OwnExtractor)
    policy.save(str(tmp_path / "policy.pt"))
    with pytest.raises(
        ValueError, match=r"`data\['features_extractor_class'\]` .*OwnExtractor.*replace it by `custom_objects`"
    ):
        CnnPolicy.load(tmp_path / "policy.pt")
    loaded = CnnPolicy.load(tmp_path / "policy.pt", custom_objects={"features_extractor_class": OwnExtractor})
    assert type(loaded.features_extractor) is OwnExtractor


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "File is not a zip file"),
        (b"text", "File is not a zip file"),
        (torch_file([1]), "does not hold the two parts"),
        (torch_file({"data": {}}), "does not hold the two parts"),
        (
            torch_file({"state_dict": {}, "data": {"net_arch": print}}),
            r"`data\['net_arch'\]` cannot be rebuilt .* builtins.print",
        ),
        (torch_file({"state_dict": {"a": MlpPolicy.load}, "data": {}}), "`state_dict` cannot be rebuilt"),
    ],
)
def test_bad_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"is damaged or no saved policy: .*{message}"):
        load_policy(MlpPolicy, io.BytesIO(content))


@pytest.mark.parametrize("change", ["missing", "short", "order", "bomb"])
def test_damaged_numbers_are_refused(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, good = io.BytesIO(), io.BytesIO(torch_file({"state_dict": {"a": th.ones(8)}, "data": {}}))
    with zipfile.ZipFile(good) as whole, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("data/0"):
                content = {"short": content[:-1], "bomb": b"\0" * 1_000_000}.get(change, content)
                if change == "missing":
                    continue
            if name.endswith("byteorder") and change == "order":
                content = b"big"
            copy.writestr(name, content)
    file.seek(0)
    monkeypatch.setattr("sb3_trpo.reading.archives._FREE_BYTES", 10_000)
    messages = {"missing": "is missing or damaged", "short": "are not 8 numbers", "order": "byte order", "bomb": "would take"}
    with pytest.raises(ValueError, match=messages[change]):
        load_policy(MlpPolicy, file)


def statistics(observations: spaces.Space[Any], path: Path) -> VecNormalize:
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(observations)] * 2), clip_obs=3.0, gamma=0.9)
    env.reset()
    for _ in range(5):
        env.step(np.array([env.action_space.sample() for _ in range(2)]))
    env.save(str(path))
    return env


@pytest.mark.parametrize(
    "observations", [OBSERVATIONS["vector"], spaces.Dict({"a": OBSERVATIONS["vector"], "b": OBSERVATIONS["matrix"]})]
)
def test_statistics_are_as_sb3_loads_them(observations: spaces.Space[Any], tmp_path: Path) -> None:
    saved = statistics(observations, tmp_path / "statistics.pkl")
    fresh = DummyVecEnv([lambda: RandomEnv(observations)] * 2)
    loaded = load_vec_normalize(tmp_path / "statistics.pkl", fresh)
    theirs = VecNormalize.load(str(tmp_path / "statistics.pkl"), fresh)
    assert vars(loaded).keys() == vars(theirs).keys()
    for name, value in vars(theirs).items():
        assert type(vars(loaded)[name]) is type(value), name
    assert (loaded.clip_obs, loaded.gamma, loaded.num_envs) == (3.0, 0.9, 2)
    obs = {key: part.sample()[None] for key, part in observations.items()} if isinstance(observations, spaces.Dict) else None
    obs = obs or observations.sample()[None]
    np.testing.assert_equal(loaded.normalize_obs(obs), saved.normalize_obs(obs))
    np.testing.assert_equal(loaded.normalize_reward(np.ones(2)), saved.normalize_reward(np.ones(2)))
    loaded.reset()
    loaded.step(np.array([loaded.action_space.sample() for _ in range(2)]))


def test_what_is_no_statistics_is_refused(tmp_path: Path) -> None:
    env = DummyVecEnv([RandomEnv])
    (tmp_path / "space.pkl").write_bytes(pickle.dumps(spaces.Discrete(2)))
    with pytest.raises(ValueError, match=r"space\.pkl holds a Discrete, not the statistics of VecNormalize"):
        load_vec_normalize(tmp_path / "space.pkl", env)
    saved = statistics(OBSERVATIONS["vector"], tmp_path / "statistics.pkl")
    vars(saved)["step_wait"] = th.nn.ReLU
    saved.save(str(tmp_path / "statistics.pkl"))
    with pytest.raises(ValueError, match=r"statistics\.pkl cannot be rebuilt .* other attributes than usual: 'step_wait'"):
        load_vec_normalize(str(tmp_path / "statistics.pkl"), env)
    statistics(OBSERVATIONS["matrix"], tmp_path / "matrix.pkl")
    with pytest.raises(AssertionError, match="spaces must have the same shape"):
        load_vec_normalize(tmp_path / "matrix.pkl", env)


def test_trust_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    (tmp_path / "policy.pt").write_bytes(torch_file({"state_dict": {}, "data": {"net_arch": print}}))
    with all_files_trusted(), pytest.raises(TypeError):  # the class does not take it
        CnnPolicy.load(tmp_path / "policy.pt")
    with all_files_trusted(False), pytest.raises(ValueError, match="cannot be rebuilt"):
        CnnPolicy.load(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        CnnPolicy.load(tmp_path / "policy.pt")

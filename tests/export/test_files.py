"""A file computes what ``predict`` does, for every space and policy; a failed export leaves the old file."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.export import onnx_model
from tests.export.models import (
    DEFAULTS,
    assert_same_actions,
    make_model,
    normalized_env,
    onnx_session,
    run_file,
    sampled,
    shift_statistics,
)
from tests.toy_envs import ACTIONS, IMAGE, OBSERVATIONS, VECTOR, RandomEnv

ASYMMETRIC = spaces.Box(np.array([-3.0, -0.1], dtype=np.float32), np.array([0.1, 20.0], dtype=np.float32))
NARROW64 = spaces.Box(np.array([-3.0, 0.1]), np.array([1.0, 0.3]), dtype=np.float64)
CASES: dict[str, dict[str, Any]] = {
    "vector_box": {},
    "float64_box_matrix": {"observations": "float64", "actions": "box_matrix"},
    "matrix_discrete": {"observations": "matrix", "actions": "discrete"},
    "uint8_multi_discrete": {"observations": "uint8", "actions": "multi_discrete"},
    "image_multi_binary": {"observations": "image", "actions": "multi_binary"},
    "discrete_discrete": {"observations": "discrete", "actions": "discrete"},
    "multi_discrete_box": {"observations": "multi_discrete"},
    "multi_binary_multi_binary": {"observations": "multi_binary", "actions": "multi_binary"},
    "dict_multi_discrete": {"policy": "MultiInputPolicy", "observations": "dict", "actions": "multi_discrete"},
    "cnn_box_matrix": {"policy": "CnnPolicy", "observations": "image", "actions": "box_matrix"},
    "paper_cnn_discrete": {"policy": "PaperCnnPolicy", "observations": "image", "actions": "discrete"},
    "asymmetric_bounds": {"env": RandomEnv(VECTOR, ASYMMETRIC)},
    "gsde_float64": {"env": RandomEnv(VECTOR, NARROW64), "use_sde": True},
    "gsde_squashed": {"env": RandomEnv(VECTOR, NARROW64), "use_sde": True, "policy_kwargs": {"squash_output": True}},
    "clipped_gaussian": {"clipped_gaussian": True},
    "beta": {"policy": "BetaMlpPolicy"},
    "beta_cnn": {"policy": "BetaCnnPolicy", "observations": "image", "actions": "box_matrix"},
    "beta_dict": {"policy": "BetaMultiInputPolicy", "observations": "dict"},
}


def test_every_space_and_policy_has_a_case() -> None:
    kinds = {case.get(part, default) for case in CASES.values() for part, default in DEFAULTS.items()}
    assert kinds == {*OBSERVATIONS, *ACTIONS, *TRPO.policy_aliases}


def raw_space(model: TRPO) -> spaces.Space[Any]:
    """The observation space of the environment itself."""
    env = model.get_env()
    assert env is not None
    space: spaces.Space[Any] = env.get_attr("observation_space")[0]
    return space


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_computes_what_predict_does(case: str, tmp_path: Path) -> None:
    model = make_model(**CASES[case])
    path = model.export_onnx(tmp_path / "policy")
    assert [child.name for child in tmp_path.iterdir()] == ["policy.onnx"]  # one file, with all weights in it
    actions = []
    for n in (1, 7, 200):
        observations = sampled(raw_space(model), n)
        actions.append(model.predict(observations, deterministic=True)[0])
        assert_same_actions(run_file(path, observations)[0], actions[-1])
    assert len(np.unique(actions[-1].reshape(200, -1), axis=0)) > 1


@pytest.mark.parametrize("case", ["vector_box", "dict_multi_discrete", "image_multi_binary", "gsde_squashed"])
def test_torch_computes_what_predict_does(case: str, tmp_path: Path) -> None:
    model = make_model(**CASES[case])
    path = model.export_torch(tmp_path / "policy")
    assert path.name == "policy.pt2"
    for n in (1, 7):
        observations = sampled(raw_space(model), n)
        assert_same_actions(run_file(path, observations)[0], model.predict(observations, deterministic=True)[0])
    metadata = {"metadata.json": ""}
    th.export.load(path, extra_files=metadata)
    assert json.loads(metadata["metadata.json"])["algorithm"] == "TRPO"


def linear_model() -> TRPO:
    """Adds nothing to its one observation, with the mean 2 and the variance 4."""
    env = normalized_env(RandomEnv(spaces.Box(-9.0, 9.0, (1,)), spaces.Box(-0.5, 0.5, (1,))), epsilon=0.0)
    shift_statistics(env, mean=2.0, var=4.0)
    model = make_model(env=env, policy_kwargs={"net_arch": []})
    weight, bias = model.policy.action_net.parameters()
    with th.no_grad():
        weight.fill_(1.0)
        bias.zero_()
    return model


@pytest.mark.parametrize("export", ["export_onnx", "export_torch"])
def test_an_answer_worked_out_by_hand(export: str, tmp_path: Path) -> None:
    path = getattr(linear_model(), export)(tmp_path / "policy")
    observations = np.array([[4.0], [2.5], [1.0], [-9.0]], dtype=np.float32)  # (x - 2) / 2 = 1, 0.25, -0.5, -5.5
    assert run_file(path, observations)[0].tolist() == [[0.5], [0.25], [-0.5], [-0.5]]


def test_other_statistics_give_other_actions(tmp_path: Path) -> None:
    env = normalized_env()
    model = make_model(env=env)
    observations = sampled(VECTOR, 5)
    files = {"own": model.export_onnx(tmp_path / "own"), "none": model.export_torch(tmp_path / "none", vec_normalize=None)}
    expected = {"own": model.predict(env.normalize_obs(observations), deterministic=True)[0]}
    expected["none"] = model.predict(observations, deterministic=True)[0]
    shift_statistics(env, mean=-0.4)
    files["moved"] = model.export_torch(tmp_path / "moved")
    expected["moved"] = model.predict(env.normalize_obs(observations), deterministic=True)[0]
    found = {name: run_file(path, observations)[0] for name, path in files.items()}
    for name in files:
        assert_same_actions(found[name], expected[name])
    assert not np.allclose(found["own"], found["none"], atol=0.01)
    assert not np.allclose(found["own"], found["moved"], atol=0.01)


def test_a_dict_of_which_one_key_is_normalized(tmp_path: Path) -> None:
    space = spaces.Dict({"image": IMAGE, "position": spaces.Box(-9.0, 9.0, (2,), dtype=np.float64)})
    env = normalized_env(RandomEnv(space), norm_obs_keys=["position"])
    model = make_model(policy="MultiInputPolicy", env=env)
    path = model.export_onnx(tmp_path / "policy")
    observations = sampled(space, 7)
    prepared = env.normalize_obs(observations)
    assert_same_actions(run_file(path, observations)[0], model.predict(prepared, deterministic=True)[0])
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(entries["normalized_inputs"]) == ["observation.position"]
    assert float(entries["observations_in_statistics"]) == 100.0


def test_further_outputs(tmp_path: Path) -> None:
    model = make_model(actions="multi_discrete")
    path = model.export_onnx(tmp_path / "policy", outputs=["log_prob", "value", "action", "probabilities"])
    observations = sampled(VECTOR, 7)
    log_prob, value, action, probabilities = run_file(path, observations)
    with th.no_grad():
        distribution = model.policy.get_distribution(th.as_tensor(observations))
        expected = model.policy.predict_values(th.as_tensor(observations)).flatten()
        np.testing.assert_allclose(log_prob, distribution.log_prob(th.as_tensor(action)), atol=1e-5)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    rows = np.arange(7)
    chosen = probabilities[rows, action[:, 0]] * probabilities[:, 2:][rows, action[:, 1]]  # of 2 and of 3 choices
    np.testing.assert_allclose(np.log(chosen), log_prob, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 2.0, atol=1e-5)
    assert [part.name for part in onnx_session(path).get_outputs()][1] == "value"


def test_the_file_tells_names_shapes_and_versions(tmp_path: Path) -> None:
    model = make_model(policy="MultiInputPolicy", observations="dict", actions="discrete")
    path = model.export_onnx(tmp_path / "policy", opset=20)
    proto = onnx.load(path)
    session = onnx_session(path)
    assert {part.name: (part.shape, part.type) for part in (*session.get_inputs(), *session.get_outputs())} == {
        "observation.discrete": (["batch"], "tensor(int64)"),
        "observation.image": (["batch", 36, 36, 1], "tensor(uint8)"),
        "observation.vector": (["batch", 3], "tensor(float)"),
        "action": (["batch"], "tensor(int64)"),
    }
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [20]
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert (entries["algorithm"], entries["policy"]) == ("TRPO", "MultiInputPolicy")
    assert entries["torch"].partition("+")[0] == th.__version__.partition("+")[0]  # the build is not always told
    assert json.loads(entries["action_space"]) == {"class": "Discrete", "shape": [], "dtype": "int64", "n": 3}
    assert json.loads(entries["observation_space"])["spaces"]["image"]["shape"] == [36, 36, 1]


def test_an_export_changes_nothing_in_the_model(tmp_path: Path) -> None:
    parameters = []
    for exports in (False, True):
        model = make_model(use_sde=True).learn(16)
        if exports:
            model.export_onnx(tmp_path / "policy")
        model.learn(16, reset_num_timesteps=False)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*parameters)


def test_a_saved_model_and_a_vine_model(tmp_path: Path) -> None:
    VineTRPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu").save(tmp_path / "model")
    model = VineTRPO.load(tmp_path / "model", device="cpu")
    path = model.export_onnx(tmp_path / "policy.v1")
    assert path == tmp_path / "policy.v1"
    assert onnx_session(path).get_modelmeta().custom_metadata_map["algorithm"] == "VineTRPO"


class Doubling(th.nn.Module):
    """Computes something else each time."""

    calls = 0

    def forward(self, features: th.Tensor) -> th.Tensor:
        self.calls += 1
        return features * self.calls


@pytest.mark.parametrize("export", ["export_onnx", "export_torch"])
@pytest.mark.parametrize("failing", ["differs", "replace"])
def test_a_failed_export_leaves_the_old_file(
    export: str, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = make_model(), tmp_path / "policy.file"
    path.write_bytes(b"old")
    if failing == "differs":
        model.policy.action_net = th.nn.Sequential(model.policy.action_net, Doubling())
        with pytest.raises(ValueError, match=r"would not do what the model does.* its action is .* and the model's is"):
            getattr(model, export)(path)
    else:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            getattr(model, export)(path)
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["policy.file"]


def test_a_missing_folder_and_a_wrong_opset_are_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no folder"):
        make_model().export_torch(tmp_path / "missing" / "policy")
    with pytest.raises(ValueError, match="`opset` must be an integer in 18 to 23, not 17"):
        make_model().export_onnx(tmp_path / "policy", opset=17)


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(ModuleNotFoundError, match=r"needs onnxscript: pip install 'sb3-trpo\[export\]'"):
        make_model().export_onnx(tmp_path / "policy")
    make_model().export_torch(tmp_path / "policy")  # needs torch only


def test_the_package_does_not_import_the_extra() -> None:
    command = "import sys, sb3_trpo; print([name for name in ('onnx', 'onnxscript', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

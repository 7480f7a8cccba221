"""The command that exports a saved model."""

import json
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch as th

from sb3_trpo import TRPO
from sb3_trpo.command_line.main import main
from sb3_trpo.zoo import ALGORITHMS
from tests.export.models import assert_same_actions, make_model, normalized_env, run_file, sampled
from tests.toy_envs import VECTOR


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model that was trained with statistics, and these beside it, as RL Zoo saves them."""
    env = normalized_env()
    model = make_model(env=env).learn(8)
    model.save(tmp_path / "model.zip")
    (tmp_path / "model").mkdir()
    env.save(str(tmp_path / "model" / "vecnormalize.pkl"))
    return tmp_path / "model.zip"


def test_the_statistics_beside_the_model_are_used(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", str(saved), "--outputs", "value", "action", "--opset", "19"])
    path = saved.with_suffix(".onnx")
    assert f"{path} (" in capsys.readouterr().out
    proto = onnx.load(path)
    entries = {entry.key: json.loads(entry.value) for entry in proto.metadata_props if entry.value.startswith("[")}
    assert (entries["normalized_inputs"], entries["outputs"]) == (["observation"], ["value", "action"])
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [19]


def test_other_statistics_or_none(saved: Path, tmp_path: Path) -> None:
    model, observations = TRPO.load(saved, device="cpu"), sampled(VECTOR, 5)
    other = normalized_env(clip_obs=0.1)
    other.save(str(tmp_path / "other.pkl"))
    for named, prepared in (("none", observations), (str(tmp_path / "other.pkl"), other.normalize_obs(observations))):
        path = tmp_path / "policy.pt2"
        main(["export", str(saved), str(path), "--statistics", named])
        assert isinstance(prepared, np.ndarray)
        assert_same_actions(run_file(path, observations)[0], model.predict(prepared, deterministic=True)[0])


def test_errors_name_the_reason(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "vecnormalize.pkl").unlink()
    with pytest.raises(SystemExit, match=r"sb3-trpo: the model was trained .*`--statistics FILE` or `--statistics none`$"):
        main(["export", str(saved)])
    with pytest.raises(SystemExit, match=r"OUTPUT must end with .onnx or .pt2, not 'policy.tflite'"):
        main(["export", str(saved), "policy.tflite"])
    with pytest.raises(SystemExit, match=r"No such file.*missing.zip"):
        main(["export", str(tmp_path / "missing.zip")])
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(SystemExit, match=r"other.pkl holds no VecNormalize, but a list"):
        main(["export", str(saved), "--statistics", str(tmp_path / "other.pkl")])
    (tmp_path / "other.pkl").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"other.pkl holds no VecNormalize: "):
        main(["export", str(saved), "--statistics", str(tmp_path / "other.pkl")])


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_model_has_its_class(algo: str, tmp_path: Path) -> None:
    policy = "MlpLstmPolicy" if "lstm" in algo else "MlpPolicy"
    model = ALGORITHMS[algo](policy, "CartPole-v1", n_steps=32, batch_size=32, device="cpu")
    model.save(tmp_path / "model.zip")
    main(["export", str(tmp_path / "model.zip"), "--algo", algo, str(tmp_path / "policy.pt2")])
    files = {"metadata.json": ""}
    th.export.load(tmp_path / "policy.pt2", extra_files=files)
    metadata = json.loads(files["metadata.json"])
    assert metadata["algorithm"] == type(model).__name__
    assert ("action_masks" in metadata["inputs"], "h" in metadata["inputs"]) == ("maskable" in algo, "lstm" in algo)


@pytest.mark.parametrize(
    ("algo", "others", "message"),
    [
        ("trpo_lstm", ["trpo"], "needs more than observations .*; the option for the class of the model is `--algo`"),
        ("maskable_trpo", ["trpo", "npg"], "the model takes action masks: pass `--algo maskable_trpo` or "),
        ("maskable_trpo_lstm", ["trpo_lstm"], "the model takes action masks: pass `--algo maskable_trpo` or "),
    ],
)
def test_a_wrong_class_is_named(algo: str, others: list[str], message: str, tmp_path: Path) -> None:
    policy = "MlpLstmPolicy" if "lstm" in algo else "MlpPolicy"
    ALGORITHMS[algo](policy, "CartPole-v1", n_steps=32, batch_size=32, device="cpu").save(tmp_path / "model.zip")
    for other in others:
        with pytest.raises(SystemExit, match=message):
            main(["export", str(tmp_path / "model.zip"), "--algo", other])
    assert [child.name for child in tmp_path.iterdir()] == ["model.zip"]


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "  export           write a trained model" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["export", "--help"])
    assert stop.value.code == 0
    assert "--image-channels" in capsys.readouterr().out

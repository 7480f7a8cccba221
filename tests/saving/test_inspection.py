"""The description of a file tells its kind, its parts and what would run."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_trpo import TRPO, MlpPolicy, ResumeCallback
from sb3_trpo.saving.inspection import inspect_file
from tests.reading.payloads import torch_file, touching
from tests.toy_envs import RandomEnv

MODELS = Path(__file__).parent / "models"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("pendulum_sde.zip", "a model of this package"),
        ("sb3/trpo_2.6.0.zip", "a model of sb3-contrib's TRPO"),
        ("sb3/ppo_2.6.0.zip", "a model of PPO, A2C or another on-policy algorithm"),
        ("images_paper.policy.pt", "a file of torch"),
    ],
)
def test_kinds_of_files(file: str, kind: str) -> None:
    first = inspect_file(MODELS / file).splitlines()[0]
    assert first.startswith(f"{MODELS / file}: {kind}")
    assert first.endswith(f"{(MODELS / file).stat().st_size:,} bytes")


def test_a_model_is_described(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, policy_kwargs={"net_arch": [4]}, target_kl=lambda _: 0.1)
    model.save(tmp_path / "model.zip")
    lines = inspect_file(tmp_path / "model.zip").splitlines()
    assert "  gamma: float 0.99" in lines
    assert "  policy_kwargs: dict {'net_arch': [4]}" in lines
    assert "  action_space: Box Box(-1.0, 1.0, (2,), float32)" in lines
    numbers = sum(value.numel() for value in model.policy.state_dict().values())
    assert f"  policy.pth: {len(model.policy.state_dict())} tensors, {numbers:,} numbers" in lines
    function = "tests.saving.test_inspection.test_a_model_is_described.<locals>.<lambda>"
    assert f"  target_kl: not rebuilt, it contains the code of the function {function}" in lines
    (runs,) = lines[lines.index("Would run if trusted:") + 1 :]
    assert runs.startswith("  target_kl: ")
    assert "cloudpickle.cloudpickle._make_function" in runs


def test_other_algorithms_are_described(tmp_path: Path) -> None:
    SAC("MlpPolicy", RandomEnv(), buffer_size=10, policy_kwargs={"net_arch": [4]}).save(tmp_path / "model.zip")
    text = inspect_file(tmp_path / "model.zip")
    assert text.splitlines()[0].startswith(f"{tmp_path / 'model.zip'}: a model of another algorithm")
    assert "  policy_class: not rebuilt, it names stable_baselines3.sac.policies.SACPolicy" in text
    assert "Would run if trusted:\n  policy_class: stable_baselines3.sac.policies.SACPolicy" in text


def test_weights_that_would_run(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.zip"
    with zipfile.ZipFile(MODELS / "pendulum_sde.zip") as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, torch_file([touching(canary)]) if name == "policy.pth" else good.read(name))
    text = inspect_file(path)
    assert "  policy.pth: posix.system" in text.partition("Would run if trusted:\n")[2]
    assert not canary.exists()


def test_a_policy_that_would_run(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "policy.pt"
    path.write_bytes(torch_file({"state_dict": {"a": th.ones(2)}, "data": {"net_arch": touching(canary), "use_sde": False}}))
    lines = inspect_file(path).splitlines()
    assert "  use_sde: bool False" in lines
    assert lines[-2:] == ["Would run if trusted:", "  net_arch: posix.system"]
    assert not canary.exists()


def test_letters_that_a_terminal_obeys_are_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(MODELS / "pendulum_sde.zip") as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            bad.writestr(name, content.replace(b'"gamma"', b'"\\u001b[2Jgamma"') if name == "data" else content)
    assert "  ?[2Jgamma: float" in inspect_file(path)


def test_an_endless_text_is_not_written(tmp_path: Path) -> None:
    for depth, shown in ((20, "  content: tuple (((("), (200, "  content: not rebuilt, it repeats its parts so often")):
        (tmp_path / "nested.pkl").write_bytes(b"K\x01" + b"2\x86" * depth + b".")
        text = inspect_file(tmp_path / "nested.pkl")
        assert shown in text
        assert len(text) < 2_000


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file is neither a saved model nor a pickle"):
        inspect_file(tmp_path / "file")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", "[")
    (tmp_path / "model.zip").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"model\.zip is damaged or no saved model: it has no entry 'policy\.pth'"):
        inspect_file(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("README.md", "text")
    with pytest.raises(ValueError, match=r"other\.zip is damaged or no saved file: it has no entry 'data\.pkl'"):
        inspect_file(tmp_path / "other.zip")


def test_a_policy_of_today(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16).policy.save(str(tmp_path / "policy.pt"))
    text = inspect_file(tmp_path / "policy.pt")
    assert text.endswith("Nothing in it needs to run.")
    assert f"  activation_fn: class {th.nn.Tanh.__module__}.Tanh" in text
    assert MlpPolicy.__name__ == "ActorCriticPolicy"


def test_a_checkpoint_is_described(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16).learn(16, ResumeCallback(tmp_path / "run"))
    (path,) = (tmp_path / "run").iterdir()
    lines = inspect_file(path).splitlines()
    assert ": a checkpoint of ResumeCallback, " in lines[0]
    assert "  class: sb3_trpo.algorithms.trpo.TRPO" in lines
    assert "  seconds: float" in {line[:16] for line in lines}
    assert "  gamma: float 0.99" in lines
    assert lines[-1] == "Nothing in it needs to run."
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for state, ending in ((pickle.dumps(Path), "  state: it holds a pathlib"), (b"", None), (pickle.dumps(1), None)):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**parts, "state.pkl": state}.items():
                archive.writestr(name, content)
        if ending is None:
            with pytest.raises(ValueError, match="is damaged or no checkpoint"):
                inspect_file(path)
        else:
            assert inspect_file(path).splitlines()[-1].startswith(ending)

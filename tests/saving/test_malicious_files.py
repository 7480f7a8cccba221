"""A corpus of malicious files: none runs, and each error or warning names the part of the file."""

import base64
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO, CnnPolicy, MlpPolicy, VineTRPO, load_policy, load_vec_normalize
from sb3_trpo.saving.inspection import inspect_file
from tests.reading.payloads import OBJECTS, PAYLOADS, payload, torch_file, touches, touching
from tests.toy_envs import RandomEnv

NEEDED = ("policy_class", "policy_kwargs", "observation_space", "action_space")
LOADS: dict[str, Callable[..., Any]] = {
    "TRPO.load": TRPO.load,
    "VineTRPO.load": VineTRPO.load,
    "TRPO.from_ppo": lambda path, **kwargs: TRPO.from_ppo(path, RandomEnv(), batch_size=16, **kwargs),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model's file."""
    path = tmp_path_factory.mktemp("good") / "model.zip"
    TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, policy_kwargs={"net_arch": [4]}, device="cpu").save(path)
    return path


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that appears if something runs; modules beside it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("evil_module", "evil_env"):
        sys.modules.pop(module, None)
    return tmp_path / "canary"


Entries = dict[str, bytes]


def changed(good: Path, change: Callable[[Entries], None]) -> io.BytesIO:
    """A copy of a file with changed entries."""
    with zipfile.ZipFile(good) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    file.seek(0)
    return file


def with_field(good: Path, name: str, content: bytes | Any) -> io.BytesIO:
    """A copy of a file with another attribute: a pickle, or a value of JSON."""
    value = {":type:": "x", ":serialized:": base64.b64encode(content).decode()} if isinstance(content, bytes) else content

    def change(entries: Entries) -> None:
        entries["data"] = json.dumps({**json.loads(entries["data"]), name: value}).encode()

    return changed(good, change)


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_canary_works(name: str, good: Path, canary: Path) -> None:
    """Each payload runs in the old way, so that the other tests can fail."""
    file = with_field(good, "ep_info_buffer", payload(name, canary))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert touches(lambda: TRPO.load(file, trusted=True), canary)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs(name: str, good: Path, canary: Path) -> None:
    content = payload(name, canary)
    with pytest.warns(UserWarning, match="`ep_info_buffer` in the file cannot be rebuilt without running code of the file"):
        assert TRPO.load(with_field(good, "ep_info_buffer", content)).n_steps == 16
    with pytest.raises(ValueError, match="`policy_kwargs` in the file cannot be rebuilt without running code of the file"):
        TRPO.load(with_field(good, "policy_kwargs", content))
    assert not canary.exists()


@pytest.mark.parametrize("way", LOADS)
@pytest.mark.parametrize("name", ["policy_kwargs", "observation_space", "learning_rate", "gamma", "new_attribute", "seed"])
def test_no_field_runs(way: str, name: str, good: Path, canary: Path) -> None:
    file = with_field(good, name, pickle.dumps(touching(canary)))
    message = rf"`{name}` in the file cannot be rebuilt .* it would call posix\.system.*custom_objects=.*trusted=True"
    if name in NEEDED:
        with pytest.raises(ValueError, match=message):
            LOADS[way](file)
    elif way == "TRPO.from_ppo" and name == "new_attribute":  # which is not taken over
        LOADS[way](file)
    else:
        with pytest.warns(UserWarning, match=message):
            LOADS[way](file)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("way", LOADS)
def test_no_weights_run(way: str, name: str, good: Path, canary: Path) -> None:
    evil = torch_file({"weight": touching(canary)})
    with pytest.raises(ValueError, match=rf"torch cannot read '{name}'"):
        LOADS[way](changed(good, lambda entries: entries.update({name: evil})))
    assert not canary.exists()
    assert touches(lambda: th.load(io.BytesIO(evil), weights_only=False), canary)


@pytest.mark.parametrize("part", ["state_dict", "data"])
@pytest.mark.parametrize("name", OBJECTS)  # torch writes its own pickles
def test_no_policy_saved_alone_runs(part: str, name: str, canary: Path) -> None:
    inside: dict[str, Any] = {"state_dict": {}, "data": {}}
    inside[part]["net_arch"] = PAYLOADS[name](canary)
    path = canary.with_name("policy.pt")
    path.write_bytes(torch_file(inside))
    field = r"data\['net_arch'\]" if part == "data" else "state_dict"
    for load in (CnnPolicy.load, lambda path: load_policy(MlpPolicy, path)):
        with pytest.raises(
            ValueError, match=rf"policy\.pt is damaged .*`{field}` cannot be rebuilt without running it.*trusted=True"
        ):
            load(path)
    assert not canary.exists()
    assert touches(lambda: load_policy(MlpPolicy, path, trusted=True), canary)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_statistics_run(name: str, canary: Path) -> None:
    path, env = canary.with_name("vecnormalize.pkl"), DummyVecEnv([RandomEnv])
    path.write_bytes(payload(name, canary))
    with pytest.raises(ValueError, match=r"vecnormalize\.pkl (cannot be rebuilt without running them|holds a)"):
        load_vec_normalize(path, env)
    assert not canary.exists()
    assert touches(lambda: load_vec_normalize(path, env, trusted=True), canary)


@pytest.mark.parametrize("name", PAYLOADS)
def test_inspection_runs_nothing(name: str, good: Path, canary: Path) -> None:
    path = canary.with_name("model.zip")
    path.write_bytes(with_field(good, "gamma", payload(name, canary)).getvalue())
    runs = inspect_file(path).partition("Would run if trusted:\n")[2]
    assert runs.startswith("  gamma: ")
    assert not canary.exists()


def test_no_environment_is_made(good: Path, canary: Path) -> None:
    """Gymnasium imports the module in the id of an environment."""
    canary.with_name("evil_env.py").write_text(f"open({str(canary)!r}, 'w').close()")
    file = with_field(good, "env", "evil_env:Evil-v0")
    with pytest.warns(UserWarning, match="`env` in the file cannot be rebuilt"):
        assert TRPO.load(file).env is None
    assert "evil_env" not in sys.modules
    assert not canary.exists()
    assert touches(lambda: TRPO.load(file, trusted=True), canary)


@pytest.mark.parametrize("name", ["_setup_model", "train", "policy_aliases", "__class__", "a b", "set_env", "_interrupted"])
def test_no_attribute_replaces_a_method(name: str, good: Path) -> None:
    for content in (pickle.dumps(th.nn.ReLU), {"MlpPolicy": 1}):
        with pytest.raises(ValueError, match=f"its attribute `{name}` is no attribute of a model"):
            TRPO.load(with_field(good, name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("policy_class", pickle.dumps(3)),
        ("policy_class", 3),
        ("policy_kwargs", ["net_arch"]),
        ("observation_space", {"low": 0}),
        ("action_space", pickle.dumps({})),
    ],
)
def test_what_a_model_needs_has_its_type(name: str, content: Any, good: Path) -> None:
    with pytest.raises(ValueError, match=f"its attribute `{name}` is a "):
        TRPO.load(with_field(good, name, content))


@pytest.mark.parametrize("content", ["not base64!", 3, None, {"a": 1}])
def test_a_pickle_that_is_no_text(content: Any, good: Path) -> None:
    with pytest.warns(UserWarning, match="`gamma` in the file cannot be rebuilt"):
        assert TRPO.load(with_field(good, "gamma", {":type:": "x", ":serialized:": content})).gamma == 0.99


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"policy.__class__.forward": th.zeros(1)}, r"holds 'policy\.__class__\.forward', which is no tensor of a model"),
        ({"_logger": th.zeros(1)}, "holds '_logger'"),
        ({"policy": "text"}, "holds 'policy'"),
        ([1], "holds a list"),
    ],
)
def test_variables_of_torch_replace_nothing(variables: Any, message: str, good: Path) -> None:
    evil = torch_file(variables)
    with pytest.raises(ValueError, match=message):
        TRPO.load(changed(good, lambda entries: entries.update({"pytorch_variables.pth": evil})))


@pytest.mark.parametrize("name", ["policy.__class__.pth", "_logger.pth", "__init__.pth", ".pth"])
def test_entries_name_parts_of_a_model(name: str, good: Path) -> None:
    with pytest.raises(ValueError, match="is not that of a part of a model"):
        TRPO.load(changed(good, lambda entries: entries.update({name: torch_file({})})))


def test_a_bomb_inside_the_weights(good: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", b"\0" * 80_000_000)
    assert len(inner.getvalue()) < 200_000
    with pytest.raises(ValueError, match=r"in its entry 'policy\.pth', its entries .* would take 80,000,000 bytes"):
        TRPO.load(changed(good, lambda entries: entries.update({"policy.pth": inner.getvalue()})))


def test_the_terminal_is_not_written_to(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = b"- OS: \x1b[2J\x1b]0;owned\x07\n"
    TRPO.load(changed(good, lambda entries: entries.update({"system_info.txt": text})), print_system_info=True)
    assert "OS: ?[2J?]0;owned?" in capsys.readouterr().out


def test_a_trusted_file_is_loaded_as_before(good: Path) -> None:
    assert TRPO.load(good, trusted=True).n_steps == 16
    with pytest.raises(ValueError, match="`trusted` must be True or False"):
        TRPO.load(good, trusted="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`trusted` must be True or False"):
        TRPO.from_ppo(good, RandomEnv(), trusted=1)  # type: ignore[arg-type]


def test_sb3s_own_load_still_works(good: Path) -> None:
    assert VecNormalize.load is not load_vec_normalize
    assert PPO.load(good).n_steps == 16

"""RL Zoo's scripts run nothing of the files of a run, unless the user says so."""

import pickle
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch as th
import yaml
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo.command_line.main import _own_packages, main
from sb3_trpo.command_line.patches import patched_zoo
from sb3_trpo.command_line.untrusted import load_plain_yaml
from tests.reading.payloads import touches, touching

pytestmark = pytest.mark.filterwarnings("ignore")

ENJOY = ["enjoy", "--env", "Pendulum-v1", "--no-render", "-n", "3", "--device", "cpu", "--num-threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run with VecNormalize."""
    folder = tmp_path_factory.mktemp("run")
    options = ["-params", "n_envs:1", "n_steps:64", "batch_size:64", "normalize:True"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train", "--env", "Pendulum-v1", "-n", "64", "--eval-freq", "-1", "--device", "cpu", "--verbose", "0", *options])
    return folder / "logs"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, whose files a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "logs")
    return tmp_path / "logs" / "trpo" / "Pendulum-v1_1" / "Pendulum-v1"


def spoil(run: Path, file: str, canary: Path) -> None:
    """Put a payload in a file."""
    evil = f"!!python/object/apply:os.system ['touch {canary}']"
    if file == "vecnormalize.pkl":
        (run / file).write_bytes(pickle.dumps(touching(canary)))
    elif file in ("normalize", "env_wrapper"):
        (run.parents[3] / "evil_wrapper.py").write_text(f"open({str(canary)!r}, 'w').close()")
        values = {"normalize": f"__import__('os').system('touch {canary}') or dict()", "env_wrapper": "evil_wrapper.Wrapper"}
        settings = yaml.load((run / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
        (run / "config.yml").write_text(yaml.dump({**settings, file: values[file]}))
    else:
        (run / file).write_text(f"env_kwargs: {evil}\n")


MESSAGES = {
    "vecnormalize.pkl": r"vecnormalize\.pkl cannot be rebuilt without running them: it would call posix\.system.*trusted",
    "config.yml": r"config\.yml needs code to be read: .*os\.system.*--trusted",
    "args.yml": r"args\.yml needs code to be read: .*os\.system.*--trusted",
    "normalize": r"`normalize` = .* in .*config\.yml is not plain data; .*--trusted",
    "env_wrapper": r"`env_wrapper` = 'evil_wrapper\.Wrapper' in .*config\.yml is none of the known wrappers; .*--trusted",
}


@pytest.mark.parametrize("file", MESSAGES)
def test_enjoy_runs_nothing(file: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    canary = tmp_path / "canary"
    spoil(run, file, canary)
    with pytest.raises(ValueError, match=MESSAGES[file]):
        main(ENJOY)
    assert not canary.exists()
    assert touches(lambda: main([*ENJOY, "--trusted"]), canary)


@pytest.mark.parametrize("options", [[], ["--trusted"]])
def test_enjoy_works(options: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ENJOY, *options, "-n", "200"])
    assert run.is_dir()
    assert "Mean reward" in capsys.readouterr().out


def read(text: str, tmp_path: Path, packages: tuple[str, ...] = (), name: str = "config.yml") -> Any:
    path = tmp_path / name
    path.write_text(text)
    with path.open() as file:
        return load_plain_yaml(packages)(yaml.load)(file, Loader=yaml.UnsafeLoader)


def test_what_the_zoo_writes_is_read(tmp_path: Path) -> None:
    settings = OrderedDict(
        policy_kwargs={"activation_fn": th.nn.ReLU, "net_arch": [8]},
        normalize="{'norm_obs': True, 'norm_reward': False}",
        env_wrapper=[{"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 2}}, "stable_baselines3.common.atari_wrappers.WarpFrame"],
        env_kwargs=None,
        shape=(1, 2),
    )
    loaded = read(yaml.dump(settings), tmp_path)
    assert loaded == {**settings, "normalize": {"norm_obs": True, "norm_reward": False}}
    assert type(loaded) is OrderedDict
    assert read("normalize: dict(norm_obs=True, clip_obs=5.0)", tmp_path) == {"normalize": {"norm_obs": True, "clip_obs": 5.0}}
    assert read("normalize: true\nenv_wrapper: null", tmp_path) == {"normalize": True, "env_wrapper": None}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/name:os.system ''",
        "a: !!python/module:antigravity ''",
        "a: !!python/object:pathlib.Path {}",
        "a: !!python/object/new:os.system [x]",
        "a: !!python/object/apply:collections.OrderedDict [1, 2]",
        "a: !!python/object/apply:builtins.eval ['1']",
        "a: [",
        "3",
        "normalize: dict(**{})",
        "normalize: dict(norm_obs=print(1))",
        "normalize: list(range(3))",
        "normalize: x",
        "env_wrapper: 3",
        "env_wrapper: os.system",
        "env_wrapper: gymnasium.wrappers.RecordVideo",
        "env_wrapper: [stable_baselines3.common.monitor.Monitor]",
        "vec_env_wrapper: {own.Wrapper: {}}",
        "env_wrapper: [[os.system]]",
    ],
)
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.yml"):
        read(text, tmp_path)


def test_the_users_own_packages_may_be_named(tmp_path: Path) -> None:
    assert read("env_wrapper: own.wrappers.Mine", tmp_path, ("own",)) == {"env_wrapper": "own.wrappers.Mine"}
    with pytest.raises(ValueError, match="owner"):
        read("env_wrapper: owner.Mine", tmp_path, ("own",))


@pytest.mark.parametrize(
    ("options", "packages"),
    [
        (["--gym-packages", "a", "b", "--env", "x"], ["a", "b"]),
        (["--env", "x", "--gym-packages=a", "-n", "5"], ["a"]),
        (["--gym-pack", "a"], ["a"]),
        (["--env", "x", "--folder", "logs"], []),
    ],
)
def test_the_users_packages_are_found(options: list[str], packages: list[str]) -> None:
    assert _own_packages(options) == packages


def test_other_files_are_read_as_before(tmp_path: Path) -> None:
    assert read("a: !!python/name:os.system ''", tmp_path, name="mine.yml")["a"].__name__ == "system"


@pytest.mark.parametrize("trusted", [False, True])
def test_the_patches_end_with_the_command(trusted: bool) -> None:
    before = yaml.load, vars(VecNormalize)["load"]
    with patched_zoo(trusted):
        assert (yaml.load is before[0]) == trusted
        assert (vars(VecNormalize)["load"] is before[1]) == trusted
    assert (yaml.load, vars(VecNormalize)["load"]) == before


def test_plots_run_nothing(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "results.pkl"
    path.write_bytes(pickle.dumps(touching(canary)))
    with pytest.raises(ValueError, match=r"the results in .*results\.pkl cannot be rebuilt .*--trusted"):
        main(["plot_from_file", "-i", str(path)])
    assert not canary.exists()
    assert touches(lambda: main(["plot_from_file", "-i", str(path), "--trusted"]), canary)


def test_inspect_prints_what_files_hold(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["inspect", str(run.parent / "Pendulum-v1.zip"), str(run / "vecnormalize.pkl")])
    printed = capsys.readouterr().out
    assert "Pendulum-v1.zip: a model of this package" in printed
    assert "policy_class: class stable_baselines3.common.policies.ActorCriticPolicy" in printed
    assert "vecnormalize.pkl: a pickle" in printed
    assert printed.count("Nothing in it needs to run.") == 2
    (tmp_path / "text").write_text("text")
    with pytest.raises(SystemExit, match="text is neither a saved model nor a pickle"):
        main(["inspect", str(tmp_path / "text")])
    with pytest.raises(SystemExit, match="No such file"):
        main(["inspect", "nothing.zip"])
    with pytest.raises(SystemExit):
        main(["inspect"])
    assert "usage: sb3-trpo inspect" in capsys.readouterr().err


def test_record_training_hands_the_trust_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    seen: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command: seen.append(command[3:6]))
    for trusted in (False, True):
        with patched_zoo(trusted):
            subprocess.call(["python", "-m", "rl_zoo3.record_video", "--env", "x"])
    assert seen == [["record_video", "--env", "x"], ["record_video", "--trusted", "--env"]]

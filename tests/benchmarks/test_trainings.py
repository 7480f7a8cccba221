"""A training that is refused writes nothing; one that ends writes its curve and its record."""

import csv
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from benchmarks import mujoco, train
from sb3_trpo import TRPO

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("command", [train, mujoco])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--steps", "nan"], SystemExit),
        (["--steps", "64", "--eval-freq", "0"], SystemExit),
        (["--steps", "64", "--eval-episodes", "-1"], SystemExit),
        (["--steps", "64", "--final-episodes", "0"], SystemExit),
        (["--steps", "64", "--set", "n_steps=-1"], ValueError),
        (["--steps", "64", "--env", "Foo-v5"], gym.error.Error),
    ],
)
def test_a_refused_command_leaves_earlier_results(
    command: Any, arguments: list[str], error: type[BaseException], tmp_path: Path
) -> None:
    names = ["curve.csv", "run.json", "hyperparameters.yml"]
    for name in names:
        (tmp_path / name).write_text("earlier")
    with pytest.raises(error):
        command.main(["--env", "Pendulum-v1", "--seed", "0", "--out", str(tmp_path), *arguments])
    assert all((tmp_path / name).read_text() == "earlier" for name in names)


@pytest.mark.parametrize("command", [train, mujoco])
def test_a_training_writes_its_curve_and_its_record(command: Any, tmp_path: Path) -> None:
    arguments = ["--env", "Pendulum-v1", "--seed", "0", "--out", str(tmp_path), "--steps", "128"]
    arguments += ["--eval-freq", "64", "--eval-episodes", "1", "--final-episodes", "2"]
    arguments += ["--set", "n_steps=64", "batch_size=64", "n_envs=1"][: None if command is mujoco else -1]
    assert command.main(arguments) == 0
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [64, 128, 128]
    assert [int(row["updates"]) for row in rows] == [0, 1, 2]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["command"] == ["python", "-m", command.__name__, *arguments]
    assert (run["episodes"], f"{run['mean_return']:.2f}") == (2, rows[-1]["mean_return"])
    assert (tmp_path / "curve.png").exists()


def test_a_training_that_was_interrupted_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--env", "Pendulum-v1", "--seed", "0", "--steps", "1024", "--eval-freq", "100", "--eval-episodes", "1"]
    command += ["--final-episodes", "2", "--set", "n_steps=64", "batch_size=64", "n_envs=1", "--out"]
    updates, update = [], TRPO.train

    def interrupted(model: TRPO) -> None:
        updates.append(1)
        if len(updates) == 13:  # ten updates after the first checkpoint there is another
            raise SystemExit("interrupted")
        update(model)

    monkeypatch.setattr(TRPO, "train", interrupted)
    with pytest.raises(SystemExit, match="interrupted"):
        mujoco.main([*command, str(tmp_path / "resumed")])
    monkeypatch.setattr(TRPO, "train", update)
    assert not (tmp_path / "resumed" / "run.json").exists()
    with pytest.raises(SystemExit, match="has the seed 0, not 1"):
        mujoco.main([*command, str(tmp_path / "resumed"), "--seed", "1"])
    for name in ("resumed", "whole"):
        assert mujoco.main([*command, str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.count("Resuming") == 1
    curves = [list(csv.DictReader((tmp_path / name / "curve.csv").open())) for name in ("resumed", "whole")]
    assert len(curves[0]) == 11
    assert [without_seconds(row) for row in curves[0]] == [without_seconds(row) for row in curves[1]]
    seconds = [float(row["train_seconds"]) for row in curves[0]]
    assert seconds == sorted(seconds)


def without_seconds(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != "train_seconds"}

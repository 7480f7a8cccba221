"""Trainings of the benchmarks: the class that was asked for, and nothing written for a command that is refused."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import sb3_contrib
from stable_baselines3 import PPO

from benchmarks import film, mujoco, train
from benchmarks.experiment import hyperparameters, set_up
from sb3_trpo import TRPO

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_algorithm_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    for name, algorithm in (("sb3_trpo", TRPO), ("sb3_contrib_trpo", sb3_contrib.TRPO), ("sb3_ppo", PPO), ("sb3_trpo", TRPO)):
        entry = hyperparameters(name, "Pendulum-v1")
        assert type(set_up(name, "Pendulum-v1", 0, tmp_path, entry)[1]) is algorithm


def test_settings_are_numbers_where_they_look_like_them() -> None:
    settings = train.parse_settings(["a=1e-3", "b=2", "c=lin_0.1", "d=None", "e=true", "f=dict(x=1)"])
    assert settings == {"a": 0.001, "b": 2, "c": "lin_0.1", "d": "None", "e": True, "f": "dict(x=1)"}
    with pytest.raises(SystemExit, match="`--set` takes NAME=VALUE, not 'cg_damping'"):
        train.parse_settings(["cg_damping"])


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


def test_a_film_is_of_the_only_model(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "Hopper-v5.zip").touch()
    for run, found in ((tmp_path, "a/Hopper-v5.zip, .*b/Hopper-v5.zip"), (tmp_path / "c", "none")):
        with pytest.raises(SystemExit, match=f"must hold one model of Hopper-v5, not: .*{found}"):
            film.main([str(run), "Hopper-v5", str(tmp_path / "film.gif")])

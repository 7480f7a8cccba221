"""Models as RL Zoo makes them: each is of the class that was asked for."""

from pathlib import Path

import pytest
import sb3_contrib
import yaml
from stable_baselines3 import PPO

from benchmarks.common.zoo import hyperparameters, refuse_other_settings, set_up, zoo_model
from sb3_trpo import TRPO

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_algorithm_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    for name, algorithm in (("sb3_trpo", TRPO), ("sb3_contrib_trpo", sb3_contrib.TRPO), ("sb3_ppo", PPO), ("sb3_trpo", TRPO)):
        entry = hyperparameters(name, "Pendulum-v1")
        assert type(set_up(name, "Pendulum-v1", 0, tmp_path, entry)[1]) is algorithm


def test_settings_take_precedence_over_the_entry() -> None:
    assert hyperparameters("sb3_trpo", "Hopper-v5", ["gamma=0.5"])["gamma"] == 0.5
    assert hyperparameters("sb3_trpo", "Hopper-v5") != hyperparameters("sb3_contrib_trpo", "Hopper-v5")
    assert hyperparameters("sb3_vine_trpo", "ALE/Pong-v5") == hyperparameters("sb3_trpo", "PongNoFrameskip-v4")


def test_a_model_alone_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo_model("sb3_trpo", "Pendulum-v1", 3, ["n_steps=32"])
    assert (model.seed, model.n_steps) == (3, 32)
    assert capsys.readouterr().out == ""


def test_an_unfinished_run_keeps_its_settings(tmp_path: Path) -> None:
    entry = {"n_timesteps": 3e6, "target_kl": 0.01}
    (tmp_path / "hyperparameters.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry, "seed": 0}))
    refuse_other_settings(tmp_path, "Pendulum-v1", 0, entry | {"n_timesteps": 4e6})
    with pytest.raises(SystemExit, match=r"has target_kl = 0\.01, not 0\.5"):
        refuse_other_settings(tmp_path, "Pendulum-v1", 0, entry | {"target_kl": 0.5})
    with pytest.raises(SystemExit, match="has the seed 0, not 1"):
        refuse_other_settings(tmp_path, "Pendulum-v1", 1, entry)


def test_a_run_with_a_schedule_keeps_its_length(tmp_path: Path) -> None:
    entry = {"n_timesteps": 3e6, "target_kl": "lin_0.01"}
    (tmp_path / "hyperparameters.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry, "seed": 0}))
    with pytest.raises(SystemExit, match=r"n_timesteps = 3000000\.0, not 4000000\.0"):
        refuse_other_settings(tmp_path, "Pendulum-v1", 0, entry | {"n_timesteps": 4e6})

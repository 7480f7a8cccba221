"""The experiment with memory and masks compares like with like, and reports known answers."""

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import yaml

import benchmarks.common.environments  # noqa: F401  registers the environment without velocities
from benchmarks import memory_and_masks, mujoco
from benchmarks.common.zoo import hyperparameters
from benchmarks.memory_and_masks import MASKS, MEMORY, PPO_LSTM, STACKED, TASKS, settings_of
from tests.benchmarks.known_runs import runs

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_arm_without_masks_has_the_entry_with_masks() -> None:
    entry = hyperparameters(MASKS, "Taxi-v4")
    plain = hyperparameters("sb3_trpo", "Taxi-v4", settings_of("sb3_trpo", "Taxi-v4"))
    assert entry.pop("mask_source") == "info"
    del entry["n_timesteps"]  # of the task
    assert {name: plain[name] for name in entry} == entry


def test_the_peer_has_the_settings_of_rl_zoo() -> None:
    assert hyperparameters(PPO_LSTM, "LunarLanderNoVel-v3")["n_envs"] == 32  # the entry is of version 2
    for env_id, task in TASKS.items():
        if PPO_LSTM in task.arms:
            assert hyperparameters(PPO_LSTM, env_id, settings_of(PPO_LSTM, env_id))["policy"] == "MlpLstmPolicy"


def test_hopper_without_velocities_shows_height_and_angles() -> None:
    env, whole = gym.make("HopperNoVel-v5"), gym.make("Hopper-v5")
    for one, other in ((env.reset(seed=3)[0], whole.reset(seed=3)[0]), (env.step(np.ones(3))[0], whole.step(np.ones(3))[0])):
        assert one in env.observation_space
        assert np.array_equal(one, other[:5])
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1_000


@pytest.mark.parametrize("name", [MEMORY, PPO_LSTM, STACKED])
def test_a_run_keeps_its_curve_and_its_record(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], check: bool) -> None:
        assert command[1:3] == ["-m", "benchmarks.mujoco"]
        short = ["--steps", "256", "--eval-episodes", "1", "--final-episodes", "1"]
        mujoco.main([*command[3 : command.index("--set")], *short, *command[command.index("--set") :]])

    monkeypatch.setattr(memory_and_masks, "subprocess", SimpleNamespace(run=run))
    memory_and_masks.train(tmp_path, name, "CartPoleNoVel-v1", 7)
    assert {path.name for path in tmp_path.iterdir()} == {"curve.csv", "run.json", "hyperparameters.yml"}
    written = yaml.safe_load((tmp_path / "hyperparameters.yml").read_text())
    assert written["seed"] == 7
    assert written["CartPoleNoVel-v1"].get("frame_stack") == (4 if name == STACKED else None)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    sides = {MEMORY: runs(400.0, 600.0), PPO_LSTM: runs(100.0, 300.0), STACKED: runs(9.0)}
    memory_and_masks.print_table({"CartPoleNoVel-v1": sides})
    row = capsys.readouterr().out.splitlines()[2]
    ours = "| CartPoleNoVel-v1 | 100,000 | RecurrentTRPO: 500 ± 1271 (2) |"
    assert row == f"{ours} RecurrentPPO: 200 ± 1271 (2), p = 0.168<br>sb3-trpo, frame_stack=4: 9.0 (1) |"

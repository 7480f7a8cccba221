"""Files of a training are replaced whole or not at all, and a training that fails ends and saves its model."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_trpo import TRPO
from sb3_trpo.command_line.patches import patched_zoo
from tests.toy_envs import RandomEnv

pytestmark = pytest.mark.filterwarnings("ignore")

MORTAL = """
import os
import gymnasium as gym
from gymnasium.envs.classic_control import PendulumEnv


class Mortal(PendulumEnv):
    taken = 0

    def step(self, action):
        Mortal.taken += 1
        if Mortal.taken == 150:
            os._exit(3)
        return super().step(action)


gym.register("Mortal-v0", Mortal, max_episode_steps=200)
"""


def test_files_are_replaced_whole_while_a_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = np.savez, VecNormalize.save, SubprocVecEnv.close
    statistics = VecNormalize(DummyVecEnv([RandomEnv]))
    with patched_zoo():
        np.savez(tmp_path / "evaluations", steps=[1])
        statistics.save(str(tmp_path / "vecnormalize.pkl"))
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert set(files) == {"evaluations.npz", "vecnormalize.pkl"}

        def full(*_: Any) -> Any:
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        statistics.clip_obs = 3.0
        with pytest.raises(OSError, match="No space left"):
            statistics.save(str(tmp_path / "vecnormalize.pkl"))
        with pytest.raises(OSError, match="No space left"):
            np.savez(tmp_path / "evaluations.npz", steps=[1, 2])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert (np.savez, VecNormalize.save, SubprocVecEnv.close) == before
    assert np.load(tmp_path / "evaluations.npz")["steps"].tolist() == [1]
    assert VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([RandomEnv])).clip_obs == 10.0


def test_a_training_whose_worker_dies_ends_and_saves_its_model(tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    command = [sys.executable, "-W", "ignore", "-m", "sb3_trpo", "train", "--gym-packages", "mortal", "--env", "Mortal-v0"]
    command += ["-n", "1000", "--vec-env", "subproc", "--eval-freq", "-1", "--device", "cpu", "--num-threads", "1"]
    command += ["-params", "n_envs:2", "n_steps:64", "batch_size:64", "normalize:True"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1, done.stderr
    assert "of the SubprocVecEnv ended with exit code 3" in done.stderr.splitlines()[-1]
    run = tmp_path / "logs" / "trpo" / "Mortal-v0_1"
    assert TRPO.load(run / "Mortal-v0.zip")._n_updates == 2
    assert (run / "Mortal-v0" / "vecnormalize.pkl").exists()

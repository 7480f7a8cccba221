"""Every example runs on a tiny budget and prints what it promises; the environments among them are sound."""

import os
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env

from sb3_trpo import TRPO

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
NEEDED = {"pettingzoo_sharing": "pettingzoo", "gail": "imitation", "export_policy": "onnxscript"}
WORSE = {"custom_environment": -60, "masks": 0.5, "memory": -1, "export_policy": -2_000}
"""Returns that even a tiny budget exceeds."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)


def example(name: str) -> Any:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    return import_module(name)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "run_exported"])
def test_the_script_trains_and_prints_its_return(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example(name)
    monkeypatch.setattr(sys, "argv", [name, "--steps", "1024"])
    with warnings.catch_warnings():
        if name == "gail":
            warnings.simplefilter("ignore")  # `imitation` uses what is deprecated
        module.main()
    printed = [float(found) for found in re.findall(r"return (-?[\d.]+) \+/- [\d.]+$", capsys.readouterr().out, re.MULTILINE)]
    assert len(printed) == (3 if name == "fine_tune_ppo" else 1)
    assert printed[-1] > WORSE.get(name, -1_000)
    if name == "fine_tune_ppo":
        assert printed[0] == printed[1]  # TRPO begins with PPO's policy


def test_every_script_is_listed_with_its_command() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.py\)", readme)) == set(SCRIPTS)
    assert "(first_steps.ipynb)" in readme
    for name in set(SCRIPTS) - {"run_exported"}:
        assert f"\n    python examples/{name}.py\n" in (FOLDER / f"{name}.py").read_text()


def test_the_environments_are_sound() -> None:
    for env in (
        example("custom_environment").ReachTarget(),
        TimeLimit(example("dict_observations").Doors(), 100),
        example("masks").Nim(),
        example("memory").RememberTheSign(),
    ):
        check_env(env)


def test_nim_allows_only_stones_that_are_there() -> None:
    env = example("masks").Nim()
    env.reset(seed=0)
    for stones, masks in ((1, [True, False, False]), (2, [True, True, False]), (9, [True, True, True])):
        env.stones = stones
        assert env.action_masks() == masks
    env.stones = 3
    assert env.step(2)[1:3] == (1.0, True)
    env.stones = 2
    with pytest.raises(ValueError, match="3 stones were taken of 2"):
        env.step(2)


def test_without_memory_the_sign_is_gone() -> None:
    env = example("memory").RememberTheSign(delay=2)
    sign = int(env.reset(seed=0)[0][0] > 0)
    observations, rewards, ended = [], [], False
    while not ended:
        observation, reward, ended, _, _ = env.step(sign)
        observations.append(observation[0])
        rewards.append(reward)
    assert set(observations) == {0.0}
    assert rewards == [0.0, 0.0, 1.0]


def test_agents_are_environments_of_their_own() -> None:
    module = example("pettingzoo_sharing")
    env = module.SharedPolicyVecEnv([module.Spread(), module.Spread()])
    assert env.num_envs == 6
    env.seed(3)
    first = env.reset()
    assert first.shape == (6, 3)
    np.testing.assert_allclose(first[0, 1:], first[1:3, 0] - first[0, 0], rtol=1e-5)  # the others' places, seen from its own
    env.seed(3)
    np.testing.assert_array_equal(env.reset(), first)
    actions = np.zeros((6, 1), dtype=np.float32)
    actions[4] = 1.0
    observations, rewards, _, _ = env.step(actions)
    np.testing.assert_array_equal(observations[:3], first[:3])
    assert observations[4, 0] == pytest.approx(first[4, 0] + 0.1)
    assert rewards[0] == rewards[1] == rewards[2] != rewards[3] == rewards[5]
    for _ in range(24):
        observations, _, dones, infos = env.step(actions)
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert infos[4]["terminal_observation"][0] == 2.0  # against the wall
    assert abs(observations[4, 0]) < 1.0  # the next episode
    assert TRPO("MlpPolicy", env, n_steps=25, batch_size=50, seed=0).learn(150).num_timesteps == 150


def test_the_command_finds_the_registered_environment(tmp_path: Path) -> None:
    options = ["--gym-packages", "custom_environment", "--env", "ReachTarget-v0", "-n", "512", "--eval-freq", "-1"]
    command = [sys.executable, "-W", "ignore", "-m", "sb3_trpo", "train", *options, "-params", "n_steps:256"]
    path = os.pathsep.join([str(FOLDER), *sys.path])
    done = subprocess.run(
        command, env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "trpo" / "ReachTarget-v0_1" / "ReachTarget-v0.zip").exists()

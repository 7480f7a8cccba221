"""The example runs an exported policy without torch and SB3, and gets the returns that the model gets."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO
from tests.export.test_further_inputs import recurrent_model
from tests.masked_envs import MaskedEnv
from tests.toy_envs import ACTIONS

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_exported.py"
WITHOUT = """
import runpy, sys
for name in ("torch", "stable_baselines3", "sb3_trpo", "onnx", "onnxscript"):
    sys.modules[name] = None  # importing it is an error
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
STEPS = 30


def test_memory_and_masks(tmp_path: Path) -> None:
    """``MaskedEnv`` raises an error at a forbidden action."""
    model = recurrent_model(masked=True, actions="multi_discrete")
    example = runpy.run_path(str(EXAMPLE))
    policy = example["ExportedPolicy"](str(model.export_onnx(tmp_path / "policy")))
    for seed in (5, 6):
        found = example["episode_return"](policy, MaskedEnv(ACTIONS["multi_discrete"]), seed, STEPS)
        env = MaskedEnv(ACTIONS["multi_discrete"])
        (obs, _), total, state, ended = env.reset(seed=seed), 0.0, None, False
        while not ended:
            action, state = model.predict(obs, state, deterministic=True, action_masks=env.mask)  # type: ignore[call-arg]
            obs, reward, ended, _, _ = env.step(action)
            total += reward
        assert found == (pytest.approx(total), 8)


def test_half_cheetah_with_statistics(tmp_path: Path) -> None:
    train_env = VecNormalize(DummyVecEnv([lambda: gym.make("HalfCheetah-v5")]))
    model = TRPO("MlpPolicy", train_env, n_steps=128, seed=0, device="cpu").learn(256)
    path = model.export_onnx(tmp_path / "cheetah")
    arguments = [str(path), "--env", "HalfCheetah-v5", "--episodes", "2", "--seed", "5", "--max-steps", str(STEPS)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(EXAMPLE), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    returns = [float(found) for found in re.findall(r"return (\S+) in 30 steps", done.stdout)]

    expected = []
    env = gym.make("HalfCheetah-v5")
    for seed in (5, 6):
        (obs, _), total = env.reset(seed=seed), 0.0
        for _ in range(STEPS):
            normalized = train_env.normalize_obs(np.asarray(obs)[None])
            obs, reward, *_ = env.step(model.predict(normalized, deterministic=True)[0][0])
            total += float(reward)
        expected.append(total)
    assert returns == pytest.approx(expected, abs=1e-4)
    assert len(set(returns)) == 2

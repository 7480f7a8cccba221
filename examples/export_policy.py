"""
Train with normalised observations, write the policy as an ONNX file, and run that file without torch.

    pip install onnx onnxruntime onnxscript
    python examples/export_policy.py
"""

import argparse
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
from run_exported import ExportedPolicy, episode_return
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO


def main() -> None:
    """Train, export, and print returns of the exported file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    parser.add_argument("--out", type=Path, help="file to write; by default a temporary one")
    chosen = parser.parse_args()

    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), gamma=0.9)
    model = TRPO("MlpPolicy", env, n_steps=1_024, gamma=0.9, seed=0, device="cpu").learn(chosen.steps)
    with tempfile.TemporaryDirectory() as folder:
        path = model.export_onnx(chosen.out or Path(folder) / "pendulum.onnx")
        policy = ExportedPolicy(str(path))  # takes raw observations: the file holds the statistics of VecNormalize
        returns = [episode_return(policy, gym.make("Pendulum-v1"), seed, 200)[0] for seed in range(10)]
    print(f"return {np.mean(returns):.1f} +/- {np.std(returns):.1f}")


if __name__ == "__main__":
    main()

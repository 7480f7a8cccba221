"""
Continue the training of a PPO model with TRPO: the policy, the critic and the shared settings are taken from PPO's file.

    python examples/fine_tune_ppo.py
"""

import argparse
import tempfile
from pathlib import Path

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_trpo import TRPO


def show(name: str, model: BaseAlgorithm) -> None:
    """Print the evaluation of a model, each on the same episodes."""
    env = Monitor(gym.make("CartPole-v1"))
    env.reset(seed=1)
    mean, std = evaluate_policy(model, env, n_eval_episodes=10)
    print(f"{name}: return {mean:.1f} +/- {std:.1f}")


def main() -> None:
    """Train with PPO, then with TRPO, and print an evaluation of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="env steps of each of the two trainings")
    steps = parser.parse_args().steps

    ppo = PPO("MlpPolicy", "CartPole-v1", n_steps=1_024, seed=0, device="cpu").learn(steps)
    show("PPO", ppo)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ppo_cartpole.zip"
        ppo.save(path)
        model = TRPO.from_ppo(path, env="CartPole-v1", device="cpu")  # of `ppo` itself it would do, too
    show("TRPO, before its first step", model)
    model.learn(steps)
    show("TRPO", model)


if __name__ == "__main__":
    main()

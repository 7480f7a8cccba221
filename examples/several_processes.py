"""
Train one policy on several processes, each with its own environments.

    torchrun --nproc-per-node 2 examples/several_processes.py

The same script is a run of one process without ``torchrun``:

    python examples/several_processes.py
"""

import argparse

from stable_baselines3.common.env_util import make_vec_env

from sb3_trpo import TRPO, evaluate_policy


def main() -> None:
    """Train, and let the first process print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="env steps of all processes together")
    steps = parser.parse_args().steps

    env = make_vec_env("CartPole-v1", 4)
    model = TRPO("MlpPolicy", env, n_steps=128, seed=0, device="cpu", distributed=True).learn(steps)
    if model.workers.rank == 0:
        mean, std = evaluate_policy(model, make_vec_env("CartPole-v1"), n_eval_episodes=20)
        print(f"{model.workers.size} processes: return {mean:.1f} +/- {std:.1f}")


if __name__ == "__main__":
    main()

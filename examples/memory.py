"""
Train a policy with memory: a sign is shown only in the first step of an episode, and the last action must follow it.

    python examples/memory.py
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from sb3_trpo import RecurrentTRPO, evaluate_policy


class RememberTheSign(gym.Env[np.ndarray, Any]):
    """
    See left or right, wait, then choose: the reward of the choice is 1 or -1.

    :param delay: number of steps from the sign to the choice
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, delay: int = 8) -> None:
        self.delay = delay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the sign."""
        super().reset(seed=seed)
        self.sign, self.waited = int(self.np_random.integers(2)), 0
        return np.array([2 * self.sign - 1, 0], dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Wait, or judge the choice."""
        self.waited += 1
        ended = self.waited > self.delay
        reward = (1.0 if int(action) == self.sign else -1.0) if ended else 0.0
        return np.array([0, self.waited == self.delay], dtype=np.float32), reward, ended, False, {}


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    policy_kwargs = {"rnn_type": "gru", "lstm_hidden_size": 32, "net_arch": []}
    model = RecurrentTRPO("MlpLstmPolicy", RememberTheSign(), n_steps=1_024, policy_kwargs=policy_kwargs, seed=0, device="cpu")
    model.learn(steps)
    mean, std = evaluate_policy(model, Monitor(RememberTheSign()), n_eval_episodes=100)
    print(f"return {mean:.2f} +/- {std:.2f}")


if __name__ == "__main__":
    main()

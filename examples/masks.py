"""
Train where some actions are forbidden: the game of Nim, against an opponent who takes stones at random.

    python examples/masks.py
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from sb3_trpo import MaskableTRPO, evaluate_policy


class Nim(gym.Env[np.ndarray, Any]):
    """Two players take 1, 2 or 3 stones in turn. Who takes the last one wins: the reward is 1, or else -1."""

    observation_space = spaces.Box(0.0, 1.0, (21,), dtype=np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Make a heap of 8 to 20 stones."""
        super().reset(seed=seed)
        self.stones = int(self.np_random.integers(8, 21))
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take stones, and let the opponent take some."""
        taken = int(action) + 1
        if taken > self.stones:
            raise ValueError(f"{taken} stones were taken of {self.stones}")
        self.stones -= taken
        if self.stones == 0:
            return self._observe(), 1.0, True, False, {}
        self.stones -= int(self.np_random.integers(1, min(3, self.stones) + 1))
        return self._observe(), -1.0 if self.stones == 0 else 0.0, self.stones == 0, False, {}

    def action_masks(self) -> list[bool]:
        """Tell which actions are possible: MaskableTRPO looks for this method."""
        return [taken <= self.stones for taken in (1, 2, 3)]

    def _observe(self) -> np.ndarray:
        return np.array([i == self.stones for i in range(21)], dtype=np.float32)


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    model = MaskableTRPO("MlpPolicy", Nim(), n_steps=1_024, seed=0, device="cpu").learn(steps)
    mean, std = evaluate_policy(model, Monitor(Nim()), n_eval_episodes=200)
    print(f"return {mean:.2f} +/- {std:.2f}")


if __name__ == "__main__":
    main()

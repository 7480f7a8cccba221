"""
Train on an environment of your own: a gymnasium class is all that TRPO needs.

    python examples/custom_environment.py
    PYTHONPATH=examples sb3-trpo train --gym-packages custom_environment --env ReachTarget-v0 -n 50000
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor

from sb3_trpo import TRPO, evaluate_policy


class ReachTarget(gym.Env[np.ndarray, np.ndarray]):
    """Push a point on a plane to a target. The reward is the negative distance, so 0 is the best return."""

    observation_space = spaces.Box(-4.0, 4.0, (4,), dtype=np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Put point and target at random places."""
        super().reset(seed=seed)
        self.point, self.target = self.np_random.uniform(-1.0, 1.0, (2, 2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the point by a tenth of the action."""
        self.point = np.clip(self.point + 0.1 * action, -2.0, 2.0)
        distance = float(np.linalg.norm(self.point - self.target))
        return self._observe(), -distance, distance < 0.05, False, {}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.point, self.target - self.point]).astype(np.float32)


gym.register("ReachTarget-v0", f"{__name__}:ReachTarget", max_episode_steps=50)  # the time limit belongs here


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    check_env(ReachTarget())
    model = TRPO("MlpPolicy", gym.make("ReachTarget-v0"), n_steps=1_024, gamma=0.95, seed=0, device="cpu").learn(steps)
    mean, std = evaluate_policy(model, Monitor(gym.make("ReachTarget-v0")), n_eval_episodes=20)
    print(f"return {mean:.2f} +/- {std:.2f}")


if __name__ == "__main__":
    main()

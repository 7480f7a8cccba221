"""
Train on an environment whose observations are a dict of different kinds: numbers and a choice, each with its own encoding.

    python examples/dict_observations.py
"""

import argparse
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor

from sb3_trpo import TRPO, evaluate_policy

Observation: TypeAlias = dict[str, Any]
DOORS = np.array([-1.0, 0.0, 1.0])


class Doors(gym.Env[Observation, Any]):
    """Walk left, wait or walk right until you stand at the door that is named. Each step costs the distance to it."""

    observation_space = spaces.Dict({"position": spaces.Box(-1.5, 1.5, (1,), dtype=np.float32), "door": spaces.Discrete(3)})
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Draw a door, and a place to begin."""
        super().reset(seed=seed)
        self.door = int(self.np_random.integers(3))
        self.position = float(self.np_random.uniform(-1.5, 1.5))
        return self._observe(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Walk a little."""
        self.position = float(np.clip(self.position + 0.1 * (int(action) - 1), -1.5, 1.5))
        distance = abs(self.position - float(DOORS[self.door]))
        return self._observe(), -distance, distance < 0.06, False, {}

    def _observe(self) -> Observation:
        return {"position": np.array([self.position], dtype=np.float32), "door": self.door}


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    model = TRPO("MultiInputPolicy", TimeLimit(Doors(), 100), n_steps=1_024, seed=0, device="cpu").learn(steps)
    mean, std = evaluate_policy(model, Monitor(TimeLimit(Doors(), 100)), n_eval_episodes=20)
    print(f"return {mean:.1f} +/- {std:.1f}")


if __name__ == "__main__":
    main()

"""
Run an exported policy with onnxruntime and gymnasium alone: neither torch nor Stable-Baselines3 is needed.

    pip install onnxruntime "gymnasium[mujoco]"
    python examples/run_exported.py cheetah.onnx --env HalfCheetah-v5
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime  # type: ignore[import-untyped]


class ExportedPolicy:
    """
    Acts as ``model.predict(observation, deterministic=True)`` did, from the observations of the environment itself.

    :param path: file that ``export_onnx`` has written
    """

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, observation: Any) -> Any:
        """
        Choose an action.

        :param observation: of one environment; the file takes a batch of them
        :return: the action
        """
        parts = {f"observation.{key}": part for key, part in observation.items()} if isinstance(observation, dict) else {}
        parts = parts or {"observation": observation}
        (actions,) = self.session.run(["action"], {name: np.asarray(part)[None] for name, part in parts.items()})
        return actions[0]


def episode_return(policy: ExportedPolicy, env: gym.Env[Any, Any], seed: int, max_steps: int) -> tuple[float, int]:
    """
    Run an episode.

    :param policy: the policy
    :param env: the environment
    :param seed: seed of the first state
    :param max_steps: steps after which the episode is cut off
    :return: sum of the rewards, number of steps
    """
    observation, _ = env.reset(seed=seed)
    total, steps, ended = 0.0, 0, False
    while not ended and steps < max_steps:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total, steps, ended = total + float(reward), steps + 1, terminated or truncated
    return total, steps


def main() -> None:
    """Run the episodes that the command line asks for, and print their returns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="file that export_onnx has written")
    parser.add_argument("--env", required=True, help="id of the environment that the policy was trained in")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--max-steps", type=int, default=10**9, help="steps after which an episode is cut off")
    parser.add_argument("--render", action="store_true", help="show the environment")
    chosen = parser.parse_args()
    policy = ExportedPolicy(chosen.file)
    with gym.make(chosen.env, render_mode="human" if chosen.render else None) as env:
        for episode in range(chosen.episodes):
            total, steps = episode_return(policy, env, chosen.seed + episode, chosen.max_steps)
            print(f"episode {episode}: return {total:.6f} in {steps} steps")


if __name__ == "__main__":
    main()

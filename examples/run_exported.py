"""
Run an exported policy with onnxruntime and gymnasium alone: neither torch nor Stable-Baselines3 is needed.

    pip install onnxruntime "gymnasium[mujoco]"
    python examples/run_exported.py cheetah.onnx --env HalfCheetah-v5
"""

import argparse
import json
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime  # type: ignore[import-untyped]


class ExportedPolicy:
    """
    Acts as ``model.predict(observation, deterministic=True)`` did, from the observations of the environment itself.

    A policy with memory keeps it from call to call, until :meth:`begin`.

    :param path: file that ``export_onnx`` has written
    """

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.shapes = {each.name: each.shape[1:] for each in self.session.get_inputs()}
        self.memory = json.loads(self.session.get_modelmeta().custom_metadata_map["memory"])
        self.begin()

    @property
    def takes_masks(self) -> bool:
        """Return whether the policy must be told which actions are possible."""
        return "action_masks" in self.shapes

    def begin(self) -> None:
        """Forget everything, because an episode begins."""
        self.state = {name: np.zeros((1, *self.shapes[name]), dtype=np.float32) for name in self.memory}

    def __call__(self, observation: Any, action_masks: Any = None) -> Any:
        """
        Choose an action.

        :param observation: of one environment; the file takes a batch of them
        :param action_masks: which actions are possible, if the policy takes masks
        :return: the action
        """
        parts = {f"observation.{key}": part for key, part in observation.items()} if isinstance(observation, dict) else {}
        parts = parts or {"observation": observation}
        values = {name: np.asarray(part)[None] for name, part in parts.items()}
        if self.takes_masks:
            values["action_masks"] = np.asarray(action_masks, dtype=bool)[None]
        if self.memory:
            values |= {**self.state, "episode_start": np.zeros(1, dtype=bool)}
        actions, *after = self.session.run(["action", *self.memory.values()], values)
        self.state = dict(zip(self.memory, after, strict=True))
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
    policy.begin()
    total, steps, ended = 0.0, 0, False
    while not ended and steps < max_steps:
        masks = env.get_wrapper_attr("action_masks")() if policy.takes_masks else None
        observation, reward, terminated, truncated, _ = env.step(policy(observation, masks))
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

"""
Draw the path of Hopper-v5's torso on the trunk and on the branches of one rollout of ``VineTRPO``. ::

    python -m benchmarks.vine_figure --out docs/img/vine.png
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.common.picture import picture
from sb3_trpo import TRPO, VineTRPO

Point = tuple[float, float]


class Tracer(gym.Wrapper[Any, Any, Any, Any]):
    """
    Notes where the torso is after every step: on the trunk, an episode a path, and on the branches, one path each.

    :param env: a MuJoCo environment in a vertical plane
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.trunk: list[list[Point]] = []
        self.branches: list[list[Point]] = []
        self.path: list[Point] = []

    def where(self) -> Point:
        """
        Read the position of the torso.

        :return: distance and height, m
        """
        position = self.env.unwrapped.data.qpos  # type: ignore[attr-defined]
        return float(position[0]), float(position[1])

    def reset(self, **kwargs: Any) -> Any:
        """See gymnasium."""
        result = self.env.reset(**kwargs)
        self.path = [self.where()]
        if not self.branches:  # the branches come after the trunk, and end with their episode
            self.trunk.append(self.path)
        return result

    def step(self, action: Any) -> Any:
        """See gymnasium."""
        result = self.env.step(action)
        self.path.append(self.where())
        return result

    def get_state(self) -> None:
        """Save nothing: the paths are no part of the simulator's state."""

    def set_state(self, state: None) -> None:
        """
        Begin the path of a branch.

        :param state: nothing
        """
        self.path = []
        self.branches.append(self.path)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Draw a vine.")
    parser.add_argument("--train", type=int, default=100_352, help="env steps of training before, with single path")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train for a while, collect one rollout, and draw it."""
    options = parse(arguments)
    th.set_num_threads(1)
    trained = TRPO("MlpPolicy", "Hopper-v5", seed=0, device="cpu").learn(options.train)
    tracer = Tracer(gym.make("Hopper-v5"))
    settings: dict[str, Any] = {"n_steps": 200, "batch_size": 200, "n_branch_states": 8, "branch_length": 60}
    model = VineTRPO("MlpPolicy", DummyVecEnv([lambda: tracer]), seed=1, device="cpu", **settings)
    model.policy.load_state_dict(trained.policy.state_dict())
    model.learn(1)
    before_step = [point for path in tracer.trunk for point in path[:-1]]
    draw(tracer, [before_step[step] for step in model._branching_steps], options.out)


def draw(tracer: Tracer, states: list[Point], out: Path) -> None:
    """
    Draw trunk, branches and branching states.

    :param tracer: the paths of one rollout
    :param states: the branching states
    :param out: the picture to write
    """
    with picture(out, 130, figsize=(9, 3.2)) as (_, axes):
        for path in tracer.trunk:
            axes.plot(*zip(*path, strict=True), color="black", linewidth=2.0)
        for path in filter(None, tracer.branches):
            axes.plot(*zip(*path, strict=True), color="tab:green", linewidth=0.9)
        axes.plot(*zip(*states, strict=True), "o", color="tab:red", markersize=4)
        axes.set(xlabel="distance of the torso (m)", ylabel="height of the torso (m)")
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(sys.argv[1:])

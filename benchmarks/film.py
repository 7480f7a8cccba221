"""
Film a model that RL Zoo's machinery trained, as a GIF, without a screen. Example::

    MUJOCO_GL=egl python -m benchmarks.film runs/mujoco/HalfCheetah-v5/sb3_trpo/seed0 HalfCheetah-v5 docs/img/halfcheetah.gif
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trpo import TRPO


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Film a trained model.")
    parser.add_argument("run", type=Path, help="folder that benchmarks.mujoco or RL Zoo wrote")
    parser.add_argument("env", help="environment id")
    parser.add_argument("gif", type=Path, help="the file to write")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--every", type=int, default=1, help="env steps a frame")
    parser.add_argument("--skip", type=int, default=0, help="env steps before the first frame")
    return parser.parse_args(arguments)


def load(run: Path, env_id: str) -> tuple[TRPO, VecEnv]:
    """
    Load the model of a run and make its environment.

    :param run: folder of the run
    :param env_id: environment id
    :return: the model, and an environment that renders, normalised as the model's was
    :raises SystemExit: if the folder does not hold one model of the environment
    """
    models = sorted(run.rglob(f"{env_id}.zip"))
    if len(models) != 1:
        found = ", ".join(str(path) for path in models) or "none"
        raise SystemExit(f"`run` = {run} must hold one model of {env_id}, not: {found}")
    render = {"render_mode": "rgb_array", "width": 240, "height": 160, "camera_name": "track"}
    env: VecEnv = make_vec_env(env_id, seed=0, env_kwargs=render)
    statistics = models[0].parent / env_id / "vecnormalize.pkl"
    if statistics.exists():
        env = normalized = VecNormalize.load(str(statistics), env)
        normalized.training = False
    return TRPO.load(models[0], device="cpu"), env


def main(arguments: list[str]) -> None:
    """Play the deterministic policy and write the film."""
    options = parse(arguments)
    model, env = load(options.run, options.env)
    observations, frames = env.reset(), []
    for step in range(options.skip + options.frames * options.every):
        if step >= options.skip and (step - options.skip) % options.every == 0:
            frames.append(Image.fromarray(np.asarray(env.render())))
        actions, _ = model.predict(observations, deterministic=True)  # type: ignore[arg-type]
        observations, *_ = env.step(actions)
    frames[0].save(options.gif, save_all=True, append_images=frames[1:], duration=50, loop=0, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])

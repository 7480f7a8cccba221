"""
Measure what random actions reach: the mean return of 100 episodes of each environment of ``benchmarks.defaults``.

::

    python -m benchmarks.random_play  # writes benchmarks/results/random_play.csv
"""

import argparse
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np

from benchmarks.common.environments import is_game
from benchmarks.common.paths import RESULTS
from benchmarks.defaults import BUDGETS

N_EPISODES = 100


def returns(env_id: str) -> np.ndarray:
    """
    Play with actions drawn from the action space.

    :param env_id: environment id
    :return: the return of each episode, shape (N_EPISODES,)
    """
    env, results = gym.make(env_id), []
    env.action_space.seed(0)
    for episode in range(N_EPISODES):
        env.reset(seed=episode)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            ended = terminated or truncated
        results.append(total)
    env.close()
    return np.array(results)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="What random actions reach.")
    parser.add_argument("--out", type=Path, default=RESULTS / "random_play.csv", help="file to write")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and write a CSV file."""
    rows = ["env,mean_return,std_return,episodes"]
    for env_id in (env_id for env_id in BUDGETS if not is_game(env_id)):
        scores = returns(env_id)
        rows.append(f"{env_id},{scores.mean():.2f},{scores.std():.2f},{N_EPISODES}")
    parse(arguments).out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

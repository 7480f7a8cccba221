"""
Train every algorithm with its defaults, as people type them, and compare the final models.

There is no wrapper and no setting: ``TRPO("MlpPolicy", env)`` of this package and of sb3-contrib, and
``PPO("MlpPolicy", env)`` of SB3; the games have SB3's usual wrapper and four frames, and "CnnPolicy". Budgets are 1M env steps
for MuJoCo and the games, and RL Zoo's for the other tasks. The runs that are still missing are made one by one, so the command
can be stopped and started again, or started several times at once::

    python -m benchmarks.defaults --out runs/defaults           # trains what is missing; days on one core
    python -m benchmarks.defaults --out runs/defaults --report  # prints the table of the runs so far, and draws the figure
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.common.arms import COLOURS, LABELS, OURS, PEER
from benchmarks.common.command_line import experiment_parser
from benchmarks.common.environments import is_game
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.picture import picture
from benchmarks.common.run_queue import make_missing
from benchmarks.common.runs import Runs, finals, read_rows, read_runs
from benchmarks.common.scores import bootstrap, holm, mean_improvement, probability_of_improvement, summary
from benchmarks.common.tables import print_head, print_row

MUJOCO = ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer", "Reacher", "Pusher", "InvertedDoublePendulum")
BUDGETS = {f"{name}-v5": 1_000_000 for name in MUJOCO} | {
    "CartPole-v1": 100_000,
    "Acrobot-v1": 100_000,
    "Pendulum-v1": 100_000,
    "MountainCarContinuous-v0": 50_000,
    "LunarLander-v3": 200_000,
    "LunarLanderContinuous-v3": 100_000,
    "BipedalWalker-v3": 1_000_000,
    "PongNoFrameskip-v4": 1_000_000,
    "BreakoutNoFrameskip-v4": 1_000_000,
}
"""Env steps for each environment."""

TIED = ("CartPole-v1", "Acrobot-v1", "InvertedDoublePendulum-v5", "MountainCarContinuous-v0")
"""
Environments that do not count in the probability of improvement. Seed 0 of both peers solved the first three and did not solve
the last; they were named before this package's final runs.
"""

N_SEEDS = {OURS: 10, PEER: 5, "sb3_ppo": 5}
"""Number of seeds of each algorithm, from 0 on."""


def train(folder: Path, name: str, env_id: str, seed: int) -> None:
    """
    Make one run in a process of its own.

    :param folder: of the run
    :param name: of the algorithm
    :param env_id: environment id
    :param seed: of the run
    """
    steps = BUDGETS[env_id]
    options = ["--algo", name, "--env", env_id, "--steps", str(steps), "--seed", str(seed)]
    options += ["--eval-freq", str(steps // 4 if is_game(env_id) else steps // 10), "--eval-episodes", "5"]
    subprocess.run([sys.executable, "-m", "benchmarks.train", *options, "--out", str(folder)], check=True)
    for unused in ("model.zip", "curve.png"):
        (folder / unused).unlink(missing_ok=True)


def print_table(runs: Runs) -> None:
    """
    Print a row for each environment: every algorithm's final models, and ours against each peer's.

    :param runs: every run
    """
    peers = [name for name in N_SEEDS if name != OURS]
    print_head("env", *(LABELS[name] for name in N_SEEDS), *(f"against {LABELS[name]}" for name in peers))
    scores = {env_id: {name: finals(runs[env_id].get(name, [])) for name in N_SEEDS} for env_id in BUDGETS if env_id in runs}
    against = [comparisons({env_id: (sides[OURS], sides[name]) for env_id, sides in scores.items()}) for name in peers]
    for env_id, sides in scores.items():
        print_row(env_id, *map(summary, sides.values()), *(texts.get(env_id, "") for texts in against))
    for name in peers:
        shared = [env for env, sides in scores.items() if env not in TIED and min(len(sides[OURS]), len(sides[name])) > 1]
        if shared:
            strata = [scores[env][side] for side in (OURS, name) for env in shared]
            low, high = bootstrap(mean_improvement, strata)
            improvement = f"{mean_improvement(strata):.2f} [{low:.2f}, {high:.2f}]"
            print(f"\nProbability of improvement over {LABELS[name]}, {len(shared)} environments: {improvement}")


def draw(runs: Runs, tuned: Runs, path: Path) -> None:
    """
    Draw every algorithm's scores, scaled from random play (0) to the mean of our tuned entry (1).

    Where no runs of an entry are stored, 1 is the best mean of an algorithm, and the environment's name has an asterisk.

    :param runs: every run with defaults
    :param tuned: runs of the tuned entries
    :param path: the picture
    """
    random = {row["env"]: float(row["mean_return"]) for row in read_rows(RESULTS / "random_play.csv")}
    drawn = [env_id for env_id in BUDGETS if env_id in random and set(N_SEEDS) <= runs.get(env_id, {}).keys()]
    entries = {env_id: finals(tuned[env_id][OURS]).mean() for env_id in drawn if OURS in tuned.get(env_id, {})}
    with picture(path, 120, figsize=(9.0, 0.6 + 0.45 * max(1, len(drawn)))) as (_, axis):
        for row, env_id in enumerate(drawn):
            top = entries.get(env_id, max(finals(sides).mean() for sides in runs[env_id].values()))
            for i, name in enumerate(N_SEEDS):
                scaled = (finals(runs[env_id][name]) - random[env_id]) / (top - random[env_id])
                place = np.full(len(scaled), row + 0.2 * (i - 1))
                axis.plot(scaled, place, ".", color=COLOURS[name], alpha=0.5)
                axis.plot(scaled.mean(), place[0], "|", color=COLOURS[name], markersize=12, markeredgewidth=2.5)
        for name in N_SEEDS:
            axis.plot([], [], "|", color=COLOURS[name], markeredgewidth=2.5, label=LABELS[name])
        axis.set_yticks(range(len(drawn)), [env_id if env_id in entries else f"{env_id}*" for env_id in drawn])
        axis.invert_yaxis()
        axis.set_xlabel("score: 0 is random play, 1 our tuned entry (*: the best mean here); a dot is a seed, a bar the mean")
        axis.legend()


def comparisons(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """
    Compare two sides on every environment where both have two seeds or more.

    :param pairs: scores of ours and of the peer, by environment
    :return: the probability that a run of ours is better, and the p-value of Welch's test of the means after Holm's correction
    """
    tested = {env_id: pair for env_id, pair in pairs.items() if min(map(len, pair)) > 1}
    equal = {env_id: np.ptp(np.concatenate(pair)) == 0.0 for env_id, pair in tested.items()}  # the test needs a deviation
    p_values = [1.0 if equal[env] else stats.ttest_ind(*pair, equal_var=False).pvalue for env, pair in tested.items()]
    return {
        env_id: f"{probability_of_improvement(*pair):.2f}, p = {p:.3f}"
        for (env_id, pair), p in zip(tested.items(), holm(p_values), strict=True)
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = experiment_parser("Every algorithm with its defaults.", RESULTS / "defaults", BUDGETS, N_SEEDS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train what is missing, or print the table."""
    options = parse(arguments)
    if options.report:
        runs = read_runs(options.out)
        print_table(runs)
        draw(runs, read_runs(RESULTS / "mujoco"), PICTURES / "defaults.png")
        return
    make_missing(options.out, options.env, {name: range(N_SEEDS[name]) for name in options.algo}, train)


if __name__ == "__main__":
    main(sys.argv[1:])

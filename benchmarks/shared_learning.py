"""
Check that two processes learn like one: the same settings and as many environments in all, several seeds.

    python -m benchmarks.shared_learning --out runs/shared_learning.csv

Each run writes one row when it ends; rows that exist are not run again. The score is the mean return of 20 episodes with
deterministic actions after training. The script ends with the means, and the 95% interval of the difference (Welch's t).
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.common.scores import welch
from benchmarks.common.settings import FIXED_BOUND
from benchmarks.common.tables import print_head, print_row
from sb3_trpo import TRPO

N_ENVS = 8
"""Environments of all processes together."""
_COLUMNS = ("env", "ranks", "seed", "return")


def train(env_id: str, seed: int, steps: int) -> float | None:
    """
    Train in this process, and in the others that ``torchrun`` has started.

    :param env_id: the environment
    :param seed: of the run
    :param steps: env steps of all processes
    :return: the score; None on all ranks but the first
    """
    env = make_vec_env(env_id, N_ENVS // int(os.environ.get("WORLD_SIZE", "1")))
    model = TRPO("MlpPolicy", env, seed=seed, distributed=True, **FIXED_BOUND).learn(steps)
    if model.workers.rank > 0:
        return None
    score, _ = evaluate_policy(model, make_vec_env(env_id, 1, seed=10_000 + seed), n_eval_episodes=20)
    assert isinstance(score, float)
    return score


def launch(env_id: str, ranks: int, seed: int, steps: int) -> float:
    """
    Run a training in processes of its own.

    :param env_id: the environment
    :param ranks: number of processes
    :param seed: of the run
    :param steps: env steps of all processes
    :return: the score
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [
        sys.executable,
        *launcher,
        "-m",
        "benchmarks.shared_learning",
        "--train",
        env_id,
        str(seed),
        "--steps",
        str(steps),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not found:
        raise RuntimeError(f"{env_id} with {ranks} ranks and seed {seed} failed:\n{done.stderr[-2_000:]}")
    return float(json.loads(found[0].removeprefix("RESULT ")))


def read_scores(path: Path) -> dict[tuple[str, int, int], float]:
    """
    Read the runs that have ended.

    :param path: the CSV file; it need not exist
    :return: score by environment, number of ranks, and seed
    """
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(row["env"], int(row["ranks"]), int(row["seed"])): float(row["return"]) for row in csv.DictReader(file)}


def print_comparison(scores: dict[tuple[str, int, int], float]) -> None:
    """
    Print a row for each environment.

    :param scores: see :func:`read_scores`
    """
    print_head("env", "1 process", "2 processes", "difference [95% interval]")
    for env_id in dict.fromkeys(env_id for env_id, *_ in scores):
        one, two = (np.array([s for (e, ranks, _), s in scores.items() if e == env_id and ranks == n]) for n in (1, 2))
        middle, low, high = welch(two, one)
        print_row(env_id, f"{one.mean():,.0f}", f"{two.mean():,.0f}", f"{middle:+,.0f} [{low:,.0f}, {high:,.0f}]")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Read the command line.

    :param arguments: its words; None: those of this process
    :return: the options
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["Hopper-v5", "HalfCheetah-v5"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--out", type=Path, default=Path("runs/shared_learning.csv"))
    parser.add_argument("--train", nargs=2, metavar=("ENV", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run all trainings, or one of them.

    :param arguments: the command line; None: that of this process
    """
    options = parse(arguments)
    if options.train:
        score = train(options.train[0], int(options.train[1]), options.steps)
        if score is not None:
            print("RESULT", json.dumps(score))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    scores = read_scores(options.out)
    for seed, env_id, ranks in product(range(options.seeds), options.envs, (1, 2)):
        if (env_id, ranks, seed) in scores:
            continue
        scores[env_id, ranks, seed] = launch(env_id, ranks, seed, options.steps)
        with options.out.open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(_COLUMNS)
            writer.writerow([env_id, ranks, seed, scores[env_id, ranks, seed]])
    print_comparison(scores)


if __name__ == "__main__":
    main()

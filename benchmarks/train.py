"""
Train one model, evaluate it as it learns, and save what it reached.

Writes to the output folder: ``curve.csv`` (one row an evaluation), ``curve.png``, ``model.zip`` and ``run.json`` (the
command, the versions and the final score). Evaluations are deterministic, on raw rewards, in an environment of their
own. Example::

    python -m benchmarks.train --env HalfCheetah-v5 --steps 1e6 --seed 0 --out runs/halfcheetah
"""

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import torch as th
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from benchmarks.plot import plot
from sb3_trpo import TRPO

COLUMNS = ["algorithm", "env", "seed", "step", "mean_return", "std_return", "train_seconds", "updates"]
PACKAGES = ["sb3-trpo", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "mujoco", "numpy"]


def algorithms() -> dict[str, type[BaseAlgorithm]]:
    """
    :return: the algorithms that can be compared, by name
    """
    return {"sb3_trpo": TRPO, "sb3_contrib_trpo": sb3_contrib.TRPO, "sb3_ppo": PPO}


class CurveCallback(BaseCallback):
    """
    Evaluates every ``eval_freq`` env steps and appends a row to a CSV file; the time of the evaluations is not counted.

    :param path: the CSV file
    :param labels: values of the first columns
    :param eval_env: environment to evaluate in; statistics of ``VecNormalize`` are copied from the training environment
    :param eval_freq: env steps between two evaluations
    :param episodes: episodes of an evaluation
    :param clock: what ``train_seconds`` is read from
    """

    def __init__(
        self,
        path: Path,
        labels: list[Any],
        eval_env: VecEnv,
        eval_freq: int,
        episodes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.path = path
        self.labels = labels
        self.eval_env = eval_env
        self.eval_freq = eval_freq
        self.episodes = episodes
        self.next_step = eval_freq
        self.clock = clock
        self.started = clock()
        self.evaluating = 0.0
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.next_step:
            self.next_step += self.eval_freq
            self.evaluate()
        return True

    def evaluate(self) -> tuple[float, float]:
        """
        :return: mean and standard deviation of the episode returns
        """
        before = self.clock()
        sync_envs_normalization(self.training_env, self.eval_env)
        returns, _ = evaluate_policy(self.model, self.eval_env, self.episodes, return_episode_rewards=True)
        row = [self.model.num_timesteps, f"{np.mean(returns):.2f}", f"{np.std(returns):.2f}"]
        row += [f"{before - self.started - self.evaluating:.1f}", updates(self.model)]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([*self.labels, *row])
        self.evaluating += self.clock() - before
        return float(np.mean(returns)), float(np.std(returns))


def updates(model: BaseAlgorithm) -> int:
    """
    :param model: a model
    :return: rollouts that its policy was updated with
    """
    n_updates: int = model._n_updates
    return n_updates // getattr(model, "n_epochs", 1)  # PPO counts its epochs


def parse_settings(items: list[str]) -> dict[str, Any]:
    """
    :param items: ``NAME=VALUE``, the values as YAML
    :return: hyperparameters by name
    :raises SystemExit: if an item has no ``=``
    """
    return {name: _read(value) for name, value in map(_split, items)}


def _split(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not (name and equals):
        raise SystemExit(f"`--set` takes NAME=VALUE, not {item!r}")
    return name, value


def _read(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for a word
    except ValueError:
        return value


def count(text: str) -> int:
    """
    :param text: of an argument
    :return: the whole number that it says; ``1e6`` is one
    :raises argparse.ArgumentTypeError: if that is not at least 1
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value >= 1.0 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return int(value)


def write_run(folder: Path, module: str, arguments: list[str], result: dict[str, Any], packages: list[str]) -> None:
    """
    Write ``run.json``: command, result, threads and versions.

    :param folder: where to write
    :param module: the module that was run
    :param arguments: its command line
    :param result: what came out, and with which hyperparameters
    :param packages: whose versions to write
    """
    run = {
        "command": ["python", "-m", module, *arguments],
        **result,
        "threads": th.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    (folder / "run.json").write_text(json.dumps(run, indent=1) + "\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: the command line, without the program
    :return: what it says
    """
    parser = argparse.ArgumentParser(description="Train one model, evaluate it as it learns, and save what it reached.")
    parser.add_argument("--algo", choices=sorted(algorithms()), default="sb3_trpo")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--steps", type=count, required=True, help="env steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-freq", type=count, default=20_000, help="env steps between two evaluations")
    parser.add_argument("--eval-episodes", type=count, default=10)
    parser.add_argument("--final-episodes", type=count, default=20, help="episodes of the last evaluation")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters, as YAML values")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--at-least", type=float, help="fail if the final score is lower")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """
    :param arguments: the command line, without the program
    :return: exit status
    """
    options = parse(arguments)
    hyperparameters = parse_settings(options.set)
    model = algorithms()[options.algo]("MlpPolicy", options.env, seed=options.seed, device="cpu", **hyperparameters)
    options.out.mkdir(parents=True, exist_ok=True)
    labels = [options.algo, options.env, options.seed]
    eval_env = make_vec_env(options.env, seed=options.seed + 10_000)
    curve = CurveCallback(options.out / "curve.csv", labels, eval_env, options.eval_freq, options.eval_episodes)
    model.learn(options.steps, callback=curve, progress_bar=options.progress)
    curve.episodes = options.final_episodes
    mean, std = curve.evaluate()

    model.save(options.out / "model")
    plot(options.out / "curve.png", [options.out / "curve.csv"])
    result = {"mean_return": mean, "std_return": std, "episodes": options.final_episodes}
    write_run(options.out, "benchmarks.train", arguments, result, PACKAGES)
    print(f"{options.env}: {mean:.1f} ± {std:.1f} over {options.final_episodes} deterministic episodes")
    print(f"model: {options.out / 'model.zip'}\nlearning curve: {options.out / 'curve.png'}")
    if options.at_least is not None and mean < options.at_least:
        print(f"the score is under {options.at_least}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

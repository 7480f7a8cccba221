"""
Train one model, evaluate it as it learns, and save the results.

The script writes to the output folder: ``curve.csv`` (one row per evaluation), ``curve.png``, ``model.zip`` and ``run.json``
(the command, the versions and the final score). Evaluations use raw rewards and a separate environment. They are
deterministic, except in Atari games, which ``CnnPolicy`` plays behind ``AtariWrapper`` and four stacked frames.
Example::

    python -m benchmarks.train --env HalfCheetah-v5 --steps 1e6 --seed 0 --out runs/halfcheetah
"""

import argparse
import sys

from benchmarks.common.arms import ALGORITHMS
from benchmarks.common.command_line import add_evaluations, add_watching, count, parse_settings, training_parser
from benchmarks.common.curve_callbacks import CurveCallback
from benchmarks.common.environments import is_game, make_env
from benchmarks.common.learning_curves import conclude
from benchmarks.common.run_record import PACKAGES, write_run


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    description = "Train one model, evaluate it as it learns, and save what it reached."
    parser = training_parser(description, ["sb3_contrib_trpo", "sb3_ppo", "sb3_trpo"], seed=0)
    parser.add_argument("--steps", type=count, required=True, help="env steps")
    add_evaluations(parser)
    add_watching(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Train, evaluate and save; return the exit status."""
    options = parse(arguments)
    cls, hyperparameters = ALGORITHMS[options.algo].cls, parse_settings(options.set)
    game = is_game(options.env)
    policy, env = ("CnnPolicy", make_env(options.env, 1, options.seed)) if game else ("MlpPolicy", options.env)
    model = cls(policy, env, seed=options.seed, device="cpu", **hyperparameters)
    options.out.mkdir(parents=True, exist_ok=True)
    labels = [options.algo, options.env, options.seed]
    eval_env = make_env(options.env, 1, options.seed + 10_000)
    path, how_often = options.out / "curve.csv", (options.eval_freq, options.eval_episodes)
    curve = CurveCallback(path, labels, eval_env, *how_often, deterministic=not game)
    model.learn(options.steps, callback=curve, progress_bar=options.progress)
    mean, std = curve.evaluate(options.final_episodes)

    model.save(options.out / "model")
    result = {"mean_return": mean, "std_return": std, "episodes": options.final_episodes}
    write_run(options.out, "benchmarks.train", arguments, result, PACKAGES)
    print(f"{options.env}: {mean:.1f} ± {std:.1f} over {options.final_episodes} episodes\nmodel: {options.out / 'model.zip'}")
    return conclude(options.out, mean, options.at_least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

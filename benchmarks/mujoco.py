"""
Train one model with RL Zoo's machinery and hyperparameters, evaluate it as it learns, and save the results.

The script writes to the output folder: ``curve.csv`` (one row per evaluation), ``curve.png``, ``run.json`` (the command, the
hyperparameters, the versions and the final score) and RL Zoo's own files, including the model. Training uses one thread, and
its seconds are CPU time, so that runs side by side do not lengthen each other's times. Evaluations are deterministic, use raw
rewards and separate environments, and have ``--eval-episodes`` episodes. The last one, of the final model, has 20 episodes.
sb3-trpo takes its hyperparameters from ``zoo_hyperparams/trpo.yml``, and the peers from RL Zoo's own files (the v4 entry if
there is none for v5). If a run of this package is killed, the same command continues it from its last checkpoint, exactly.
Example::

    python -m benchmarks.mujoco --env HalfCheetah-v5 --seed 0 --out runs/mujoco/HalfCheetah-v5/sb3_trpo/seed0
    python -m benchmarks.mujoco --algo sb3_contrib_trpo --env HalfCheetah-v5 --seed 0 --out runs/contrib
"""

import argparse
import sys
import time

import torch as th

from benchmarks.common.arms import ALGORITHMS
from benchmarks.common.command_line import add_evaluations, add_watching, count, training_parser
from benchmarks.common.curve_callbacks import CurveCallback
from benchmarks.common.learning_curves import conclude
from benchmarks.common.run_record import ZOO_PACKAGES, write_run
from benchmarks.common.zoo import hyperparameters, set_up


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = training_parser("Train one model as RL Zoo does, and evaluate it as it learns.", sorted(ALGORITHMS))
    parser.add_argument("--steps", type=count, help="env steps; default: those of the hyperparameters")
    add_evaluations(parser)
    add_watching(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Train, evaluate and save; return the exit status."""
    options = parse(arguments)
    th.set_num_threads(1)
    entry = hyperparameters(options.algo, options.env, options.set)
    if options.steps:
        entry["n_timesteps"] = options.steps
    manager, model = set_up(
        options.algo, options.env, options.seed, options.out, entry, resume=True, progress=options.progress
    )
    eval_env = manager.create_envs(options.eval_episodes, eval_env=True)
    eval_env.seed(options.seed + 10_000)
    labels, path = [options.algo, options.env, options.seed], options.out / "curve.csv"
    curve = CurveCallback(path, labels, eval_env, options.eval_freq, options.eval_episodes, time.process_time)
    manager.callbacks.append(curve)
    manager.learn(model)
    if model.num_timesteps < manager.n_timesteps:  # Ctrl-C, which RL Zoo takes for the end
        print(f"stopped after {model.num_timesteps:,} of {manager.n_timesteps:,} steps: no run.json")
        return 1
    mean, std = curve.evaluate(options.final_episodes)
    manager.save_trained_model(model)
    result = {"steps": model.num_timesteps, "mean_return": mean, "std_return": std, "episodes": options.final_episodes}
    write_run(options.out, "benchmarks.mujoco", arguments, {"hyperparameters": entry, **result}, ZOO_PACKAGES)
    print(f"{options.algo} {options.env} seed {options.seed}: {mean:.1f} ± {std:.1f} over {options.final_episodes} episodes")
    return conclude(options.out, mean, options.at_least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""
Train on an Atari game with RL Zoo's machinery and the ``atari`` entry of the hyperparameters.

The script writes to the output folder: ``curve.csv`` (one row per fixed number of env steps, with the mean return of the games
that ended since the last row), and at the end the model in ``model.zip`` and ``run.json`` with the mean return of further
games. It plays whole games with unclipped returns and draws actions at random from the policy. If a run of this package is
killed, the same command continues it from its last checkpoint, exactly. A larger ``--steps`` continues a finished run.
Training uses one thread, and its seconds are CPU time. With a GPU or one process per environment, they are wall-clock time.
Examples::

    python -m benchmarks.atari --env PongNoFrameskip-v4 --seed 0 --steps 3e6 --out runs/atari/Pong/seed0
    python -m benchmarks.atari --env PongNoFrameskip-v4 --seed 1 --steps 3e6 --out runs/atari/Pong/seed1 \\
        --device cuda --vec-env subproc
"""

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.command_line import count, training_parser
from benchmarks.common.curve_callbacks import GamesCallback
from benchmarks.common.run_record import ZOO_PACKAGES, write_run
from benchmarks.common.zoo import hyperparameters, set_up


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = training_parser("Train on an Atari game; may be killed and run again.", ["sb3_trpo", "sb3_vine_trpo", "sb3_ppo"])
    parser.add_argument("--steps", type=count, required=True, help="env steps, those of a killed run included")
    parser.add_argument("--log-freq", type=count, default=20_480, help="env steps between two rows of the curve")
    parser.add_argument("--games", type=count, default=20, help="games of the last evaluation")
    parser.add_argument("--device", default="cpu", help="as torch names it")
    parser.add_argument("--vec-env", choices=["dummy", "subproc"], default="dummy", help="subproc: a process per environment")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Train, or go on from the checkpoint, and evaluate; return the exit status."""
    options = parse(arguments)
    th.set_num_threads(1)
    entry = hyperparameters(options.algo, options.env, options.set)
    entry["n_timesteps"] = float(options.steps)
    manager, model = set_up(
        options.algo, options.env, options.seed, options.out, entry, options.device, options.vec_env, resume=True
    )
    resumed_at = model.num_timesteps
    if resumed_at:
        print(f"going on from {resumed_at:,} steps", flush=True)
    (options.out / "run.json").unlink(missing_ok=True)  # of a shorter run
    one_thread = (options.device, options.vec_env) == ("cpu", "dummy")
    clock = time.process_time if one_thread else time.perf_counter
    games = GamesCallback(options.out, [options.algo, options.env, options.seed], options.log_freq, clock)
    model.learn(options.steps, callback=[games, *manager.callbacks], log_interval=10**9)
    model.save(options.out / "model")

    mean, std = evaluate(model, manager.create_envs(8, eval_env=True), options)
    result: dict[str, float] = {"resumed_at": resumed_at, "steps": model.num_timesteps}
    result |= {"mean_return": mean, "std_return": std, "games": options.games}
    write_run(options.out, "benchmarks.atari", arguments, {"hyperparameters": entry, **result}, ZOO_PACKAGES)
    print(f"{options.algo} {options.env} seed {options.seed}: {mean:.1f} ± {std:.1f} over {options.games} games")
    return 0


def evaluate(model: OnPolicyAlgorithm, env: Any, options: argparse.Namespace) -> tuple[float, float]:
    """
    Play whole games with the policy's own random actions.

    :param model: the trained model
    :param env: environments to play in
    :param options: the command line
    :return: mean and standard deviation of the returns, unclipped
    """
    env.seed(options.seed + 10_000)
    returns, _ = evaluate_policy(model, env, options.games, deterministic=False, return_episode_rewards=True)
    return float(np.mean(returns)), float(np.std(returns))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

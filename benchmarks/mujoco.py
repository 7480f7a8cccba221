"""
Train one model with RL Zoo's machinery and hyperparameters, evaluate it as it learns, and save what it reached.

Writes to the output folder: ``curve.csv`` (one row an evaluation), ``run.json`` (the command, the hyperparameters, the
versions and the final score) and RL Zoo's own files, the model among them. Training takes one thread; its seconds are CPU
time, so that runs side by side do not lengthen each other's. Evaluations are deterministic, on raw rewards, in
an environment of their own; the last one, of the final model, has 20 episodes. sb3-trpo takes its hyperparameters from
``zoo_hyperparams/trpo.yml``, the peers from RL Zoo's own files (the v4 entry where there is none for v5). Example::

    python -m benchmarks.mujoco --env HalfCheetah-v5 --seed 0 --out runs/mujoco/HalfCheetah-v5/sb3_trpo/seed0
    python -m benchmarks.mujoco --algo sb3_contrib_trpo --env HalfCheetah-v5 --seed 0 --out runs/contrib
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rl_zoo3
import torch as th
import yaml
from rl_zoo3.exp_manager import ExperimentManager

from benchmarks.train import PACKAGES, CurveCallback

ZOO_NAMES = {"sb3_trpo": "trpo", "sb3_contrib_trpo": "trpo", "sb3_ppo": "ppo"}


def hyperparameters(algorithm: str, env_id: str) -> dict[str, Any]:
    """
    :param algorithm: one of :data:`ZOO_NAMES`
    :param env_id: environment id
    :return: the entry that RL Zoo would read
    """
    if algorithm == "sb3_trpo":
        from sb3_trpo.zoo import hyperparameters_file  # also makes this package's class RL Zoo's trpo

        path = hyperparameters_file()
    else:
        path = Path(rl_zoo3.__file__).parent / "hyperparams" / f"{ZOO_NAMES[algorithm]}.yml"
    entries = yaml.safe_load(path.read_text())
    entry = entries.get(env_id) or entries[env_id.replace("-v5", "-v4")]
    return dict(entry)


def parse(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: the command line, without the program
    :return: what it says
    """
    parser = argparse.ArgumentParser(description="Train one model as RL Zoo does, and evaluate it as it learns.")
    parser.add_argument("--algo", choices=sorted(ZOO_NAMES), default="sb3_trpo")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=float, help="env steps; default: those of the hyperparameters")
    parser.add_argument("--eval-freq", type=int, default=20_000, help="env steps between two evaluations")
    parser.add_argument("--eval-episodes", type=int, default=10)
    parser.add_argument("--final-episodes", type=int, default=20, help="episodes of the last evaluation")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters, as YAML values")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """
    :param arguments: the command line, without the program
    :return: exit status
    """
    options = parse(arguments)
    th.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    entry = hyperparameters(options.algo, options.env)
    entry.update({name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in options.set)})
    if options.steps:
        entry["n_timesteps"] = options.steps
    config = options.out / "hyperparameters.yml"
    config.write_text(yaml.safe_dump({options.env: entry}))

    manager = ExperimentManager(
        argparse.Namespace(),
        ZOO_NAMES[options.algo],
        options.env,
        str(options.out / "zoo"),
        eval_freq=-1,
        log_interval=-1,
        seed=options.seed,
        config=str(config),
        device="cpu",
        verbose=0,
    )
    experiment = manager.setup_experiment()
    assert experiment is not None
    model = experiment[0]
    eval_env = manager.create_envs(1, eval_env=True)
    eval_env.seed(options.seed + 10_000)
    labels = [options.algo, options.env, options.seed]
    curve = CurveCallback(
        options.out / "curve.csv",
        labels,
        eval_env,
        options.eval_freq,
        options.eval_episodes,
        time.process_time,
    )
    manager.callbacks.append(curve)
    manager.learn(model)
    curve.episodes = options.final_episodes
    mean, std = curve.evaluate()
    manager.save_trained_model(model)
    run = {
        "command": ["python", "-m", "benchmarks.mujoco", *arguments],
        "hyperparameters": entry,
        "mean_return": mean,
        "std_return": std,
        "episodes": options.final_episodes,
        "threads": th.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in [*PACKAGES, "rl_zoo3"]},
    }
    (options.out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    print(f"{options.algo} {options.env} seed {options.seed}: {mean:.1f} ± {std:.1f} over {options.final_episodes} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

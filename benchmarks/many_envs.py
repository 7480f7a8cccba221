"""
Measure the cost of an env step as the number of environments grows, against SB3's PPO and sb3-contrib's TRPO.

The environments are CartPole-v1 in NumPy, all in one array (:mod:`benchmarks.common.cart_poles`), so that little but the
algorithms' own work is left. Every rollout has 16,384 env steps. The three sides run one rollout and one update each, in turn.
The script prints a Markdown table, in microseconds of CPU time per env step, the least of the rounds: other processes disturb
it less than the time of a clock::

    OMP_NUM_THREADS=1 python -m benchmarks.many_envs
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import sb3_contrib
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.cart_poles import CartPoles
from benchmarks.common.tables import print_head, print_row
from sb3_trpo import TRPO

N_ENVS = (1, 16, 128, 1024)
ENV_STEPS = 16_384
SIDES: dict[str, type[OnPolicyAlgorithm]] = {"ours": TRPO, "sb3-contrib's TRPO": sb3_contrib.TRPO, "SB3's PPO": PPO}


def cpu_seconds(function: Callable[[], object]) -> float:
    """
    Time one call by the CPU that this process uses.

    :param function: the function to call
    :return: seconds
    """
    started = time.process_time()
    function()
    return time.process_time() - started


def one_update(model: OnPolicyAlgorithm) -> tuple[float, float]:
    """
    Collect one rollout and update with it.

    :param model: the model
    :return: CPU seconds of the collection and of the update
    """
    _, callback = model._setup_learn(ENV_STEPS)
    env = model.env
    assert env is not None
    collect = cpu_seconds(lambda: model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps))
    return collect, cpu_seconds(model.train)


def environment_alone(n_envs: int) -> float:
    """
    Step the environments as often as a rollout does.

    :param n_envs: their number
    :return: CPU seconds
    """
    env, actions = CartPoles(n_envs), np.zeros(n_envs, dtype=np.int64)
    env.reset()

    def steps() -> None:
        for _ in range(ENV_STEPS // n_envs):
            env.step(actions)

    return cpu_seconds(steps)


def measure(n_envs: int, rounds: int) -> dict[str, tuple[float, float]]:
    """
    Measure one number of environments.

    :param n_envs: their number
    :param rounds: turns of all sides
    :return: microseconds of collection and update per env step by side, and those of the environments and 0
    """
    settings: dict[str, Any] = {"n_steps": ENV_STEPS // n_envs, "seed": 0, "device": "cpu"}
    models = {name: cls("MlpPolicy", CartPoles(n_envs), **settings) for name, cls in SIDES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in [*SIDES, "environments"]}
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(one_update(model))
        times["environments"].append((environment_alone(n_envs), 0.0))
    scale = 1e6 / ENV_STEPS
    best = {name: np.min(of_side, axis=0) * scale for name, of_side in times.items()}
    return {name: (float(collect), float(update)) for name, (collect, update) in best.items()}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The cost of an env step as the number of environments grows.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all sides")
    parser.add_argument("--n-envs", type=int, nargs="+", default=N_ENVS, help="numbers of environments")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    print_head("environments", *(f"{name}: collection + update" for name in SIDES), "PPO over ours", "environments alone")
    for n_envs in options.n_envs:
        found = measure(n_envs, options.rounds)
        costs = [f"{sum(found[name]):.1f} = {found[name][0]:.2f} + {found[name][1]:.1f}" for name in SIDES]
        ratio = sum(found["SB3's PPO"]) / sum(found["ours"])
        print_row(f"{n_envs:,}", *costs, f"{ratio:.1f}", f"{found['environments'][0]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])

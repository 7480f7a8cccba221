"""
Compare the learning of sb3-trpo and sb3-contrib's TRPO with the same hyperparameters: does speed cost learning?

The script reads the rows of ``benchmarks.train``. For two scores of a run, it prints the mean over seeds and the 95% interval
of the difference (Welch's t). The scores are the mean return over the curve, and the mean return of the final model.

For the same trust region, ``target_kl`` and ``cg_damping`` are multiplied by the action dimension d. The runs::

    for seed in 0 1 2 3 4; do
      python -m benchmarks.train --algo sb3_contrib_trpo --env HalfCheetah-v5 --steps 5e5 --seed $seed \\
        --out benchmarks/results/equal_settings/HalfCheetah-v5/sb3_contrib_trpo/seed$seed
      python -m benchmarks.train --env HalfCheetah-v5 --steps 5e5 --seed $seed --set target_kl=0.06 cg_damping=0.6 \\
        --out benchmarks/results/equal_settings/HalfCheetah-v5/sb3_trpo/seed$seed
    done  # and Hopper-v5 with target_kl=0.03 cg_damping=0.3
    python -m benchmarks.equal_settings  # the table, and docs/img/equal_settings.png
"""

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks.common.arms import ALGORITHMS, COLOURS, OURS, PEER
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.picture import picture
from benchmarks.common.runs import Curve, read_runs
from benchmarks.common.scores import half_width, welch
from benchmarks.common.tables import print_head, print_row

NAMES = {name: ALGORITHMS[name].package for name in (OURS, PEER)}


def print_environment(env_id: str, ours: np.ndarray, peer: np.ndarray) -> None:
    """
    Print a row for each score of a run.

    :param env_id: environment id
    :param ours: returns, shape (seeds, E)
    :param peer: returns, shape (seeds, E)
    """
    for label, a, b in (("mean over the curve", ours.mean(1), peer.mean(1)), ("final model", ours[:, -1], peer[:, -1])):
        middle, low, high = welch(a, b)
        print_row(env_id, label, f"{a.mean():,.0f}", f"{b.mean():,.0f}", f"{middle:+,.0f} [{low:,.0f}, {high:,.0f}]")


def draw_environment(axis: Any, env_id: str, runs: dict[str, list[Curve]]) -> None:
    """
    Draw the mean over the seeds of both sides, and its 95% interval by Student's t.

    :param axis: matplotlib's
    :param env_id: environment id
    :param runs: of both sides, evaluated at the same steps
    """
    for name, label in NAMES.items():
        steps, returns = runs[name][0].steps, np.array([run.returns for run in runs[name]])
        mean, half = returns.mean(axis=0), half_width(returns)
        axis.plot(steps, mean, color=COLOURS[name], label=label)
        axis.fill_between(steps, mean - half, mean + half, color=COLOURS[name], alpha=0.2, linewidth=0)
    axis.set(xlabel="env steps", ylabel="return (deterministic)", title=env_id)
    axis.grid(alpha=0.3)
    axis.legend()


def main(arguments: list[str]) -> None:
    """Print the table and draw the curves."""
    argparse.ArgumentParser(description="Curves at equal hyperparameters, and their differences.").parse_args(arguments)
    environments = read_runs(RESULTS / "equal_settings")
    print_head("env", "score of a run", *NAMES.values(), "difference, 95% interval")
    size = {"ncols": len(environments), "figsize": (4.2 * len(environments), 3.2)}
    with picture(PICTURES / "equal_settings.png", 120, **size) as (_, axes):
        for (env_id, runs), axis in zip(environments.items(), axes, strict=True):
            draw_environment(axis, env_id, runs)
            ours, peer = (np.array([run.returns for run in runs[name]]) for name in NAMES)
            print_environment(env_id, ours, peer)


if __name__ == "__main__":
    main(sys.argv[1:])

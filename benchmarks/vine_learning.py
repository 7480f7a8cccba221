"""
Learning with vine sampling and with single path, per simulator call and per update of the policy.

Reads the runs in ``benchmarks/results/vine/learning``, prints a table and draws the curves::

    python -m benchmarks.vine_learning --out docs/img/vine_learning.png

A run is made by ``benchmarks.mujoco`` or ``benchmarks.atari``; its ``run.json`` has the command.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.report import NAMES, ROOT, Curve, draw, read_runs

RUNS = ROOT / "benchmarks" / "results" / "vine" / "learning"


def score(runs: list[Curve], column: str, budget: float) -> str:
    """
    :param runs: one a seed
    :param column: what the budget counts: "steps" or "updates"
    :param budget: how much of it
    :return: the mean return by then (the last evaluation within the budget), and that of every seed
    """
    reached = [run.returns[np.searchsorted(getattr(run, column), budget, side="right") - 1] for run in runs]
    return f"{np.mean(reached):.0f} ({', '.join(f'{value:.0f}' for value in reached)})"


def main(arguments: list[str]) -> None:
    """
    Print the table and draw the curves.

    :param arguments: the command line, without the program
    """
    parser = argparse.ArgumentParser(description="Learning with vine sampling and with single path.")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    options = parser.parse_args(arguments)
    environments = read_runs(RUNS)
    print("| env | sampling | simulator calls, updates | return | return after as many updates |\n|---|---|---|---|---|")
    for env_id, algorithms in environments.items():
        updates = min(min(run.updates[-1] for run in runs) for runs in algorithms.values())
        for name, runs in algorithms.items():
            steps, own_updates = (np.mean([getattr(run, key)[-1] for run in runs]) for key in ("steps", "updates"))
            by_calls, by_updates = score(runs, "steps", np.inf), score(runs, "updates", updates)
            print(
                f"| {env_id} | {NAMES[name]} | {steps:,.0f}, {own_updates:.0f} | {by_calls} | {by_updates} ({updates:.0f}) |"
            )
    draw(options.out, environments, ["steps", "updates"], per_row=2)


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Print tables and draw a plot from ``benchmarks/results/vine``: the gradients and the learning of vine and single path.

The gradients come from ``benchmarks.vine``, and the runs from ``benchmarks.mujoco`` and ``benchmarks.atari``, whose
``run.json`` has the command. ::

    python -m benchmarks.vine_report  # prints Markdown, writes docs/img/vine_learning.png
"""

import argparse
import sys

import numpy as np

from benchmarks.common.arms import LABELS
from benchmarks.common.learning_curves import draw_comparison
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.runs import Curve, Runs, read_rows, read_runs
from benchmarks.common.tables import print_head, print_row


def score(runs: list[Curve], column: str, budget: float) -> str:
    """
    Describe the returns within a budget: those of the last evaluation that it allows.

    :param runs: one a seed
    :param column: the unit of the budget: "steps" or "updates"
    :param budget: how many of them
    :return: the mean return by then, and that of every seed
    """
    reached = [run.returns[np.searchsorted(getattr(run, column), budget, side="right") - 1] for run in runs]
    digits = 1 if max(reached) < 10.0 else 0
    return f"{np.mean(reached):,.{digits}f} ({'; '.join(f'{value:,.{digits}f}' for value in reached)})"


def gradient_cells(row: dict[str, str]) -> list[str]:
    """
    Describe one estimator of the gradient.

    :param row: as ``benchmarks.vine`` wrote it
    :return: its row of the table
    """
    env = f"{row['env'].replace('NoFrameskip-v4', '')}, {int(row['trained_steps']):,}"
    cells = [env, f"{int(row['calls']):,}", f"{row['estimator']}, {row['settings']}"]
    cells += [f"{float(row['cosine']):.2f} ± {float(row['cosine_std']):.2f}" if row["cosine"] else ""]
    variance = row["relative_variance"]
    hidden = bool(variance) and float(variance) > 1e6  # the mean is not longer than its own noise
    return [*cells, f"{float(row['cosine_of_mean']):.2f}", "no signal" if hidden else variance]


def print_gradients() -> None:
    """Print a row for each estimator and number of simulator calls."""
    print_head("env, trained for", "calls", "estimator", "cosine", "of the mean", "relative variance")
    for path in sorted((RESULTS / "vine").glob("*.csv")):
        for row in read_rows(path):
            print_row(*gradient_cells(row))


def print_learning(environments: Runs) -> None:
    """
    Print a row for each environment and way of sampling.

    :param environments: every run
    """
    print()
    print_head("env", "sampling", "simulator calls; updates", "return then", "return after as many updates")
    for env_id, algorithms in environments.items():
        updates = min(run.updates[-1] for runs in algorithms.values() for run in runs)
        for name, runs in algorithms.items():
            steps, own_updates = (np.mean([getattr(run, key)[-1] for run in runs]) for key in ("steps", "updates"))
            cells = [
                env_id.replace("NoFrameskip-v4", ""),
                LABELS[name],
                f"{steps:,.0f}; {own_updates:.0f}",
                score(runs, "steps", np.inf),
            ]
            print_row(*cells, f"{score(runs, 'updates', updates)} ({updates:.0f})")


def main(arguments: list[str]) -> None:
    """Print the tables and draw the curves."""
    argparse.ArgumentParser(description="Tables and plot of vine sampling.").parse_args(arguments)
    print_gradients()
    environments = read_runs(RESULTS / "vine" / "learning")
    print_learning(environments)
    draw_comparison(PICTURES / "vine_learning.png", environments, ["steps", "updates"], per_row=2)


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Tables and plot of what ``benchmarks/results/vine`` holds: gradients of vine sampling and of single path, and how both learn.

The gradients are those of ``benchmarks.vine``, the runs those of ``benchmarks.mujoco`` and ``benchmarks.atari``, whose
``run.json`` has the command. ::

    python -m benchmarks.vine_report  # prints Markdown, writes docs/img/vine_learning.png
"""

import csv

import numpy as np

from benchmarks.report import NAMES, ROOT, Curve, Runs, draw, read_runs

RESULTS = ROOT / "benchmarks" / "results" / "vine"


def score(runs: list[Curve], column: str, budget: float) -> str:
    """
    :param runs: one a seed
    :param column: what the budget counts: "steps" or "updates"
    :param budget: how much of it
    :return: the mean return by then (the last evaluation within the budget), and that of every seed
    """
    reached = [run.returns[np.searchsorted(getattr(run, column), budget, side="right") - 1] for run in runs]
    digits = 1 if max(reached) < 10.0 else 0
    return f"{np.mean(reached):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in reached)})"


def print_gradients() -> None:
    """One row an estimator and number of simulator calls."""
    print("| env | trained for | calls | estimator | cosine to the reference | of the mean | relative variance |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(RESULTS.glob("*.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                cells = [row["env"], f"{int(row['trained_steps']):,}", row["calls"], f"{row['estimator']}, {row['settings']}"]
                cells += [f"{float(row['cosine']):.2f} ± {float(row['cosine_std']):.2f}" if row["cosine"] else ""]
                cells += [f"{float(row['cosine_of_mean']):.2f}"]
                variance = row["relative_variance"]
                hidden = bool(variance) and float(variance) > 1e6  # the mean is not longer than its own noise
                print(f"| {' | '.join([*cells, 'no signal' if hidden else variance])} |")


def print_learning(environments: Runs) -> None:
    """
    One row an environment and way of sampling.

    :param environments: every run
    """
    print(
        "\n| env | sampling | simulator calls; updates | return then | return after as many updates |\n|---|---|---|---|---|"
    )
    for env_id, algorithms in environments.items():
        updates = min(run.updates[-1] for runs in algorithms.values() for run in runs)
        for name, runs in algorithms.items():
            steps, own_updates = (np.mean([getattr(run, key)[-1] for run in runs]) for key in ("steps", "updates"))
            cells = [env_id, NAMES[name], f"{steps:,.0f}; {own_updates:.0f}", score(runs, "steps", np.inf)]
            print(f"| {' | '.join(cells)} | {score(runs, 'updates', updates)} ({updates:.0f}) |")


def main() -> None:
    """Print the tables and draw the curves."""
    print_gradients()
    environments = read_runs(RESULTS / "learning")
    print_learning(environments)
    draw(ROOT / "docs" / "img" / "vine_learning.png", environments, ["steps", "updates"], per_row=2)


if __name__ == "__main__":
    main()

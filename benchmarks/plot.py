"""
Draw learning curves from the rows that ``benchmarks.train`` writes: one line a run.

Example::

    python -m benchmarks.plot docs/img/halfcheetah.png benchmarks/results/halfcheetah_default/seed*/curve.csv
"""

import csv
import sys
from pathlib import Path

import numpy as np


def plot(png_path: Path, csv_paths: list[Path]) -> None:
    """
    Draw returns against env steps: the mean of each run's evaluations, and the standard deviation of a single run.

    :param png_path: the picture to write
    :param csv_paths: one file a run
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for path in csv_paths:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        steps, mean, std = (np.array([float(row[key]) for row in rows]) for key in ("step", "mean_return", "std_return"))
        axes.plot(steps, mean, label=f"{rows[0]['algorithm']}, seed {rows[0]['seed']}")
        if len(csv_paths) == 1:
            axes.fill_between(steps, mean - std, mean + std, alpha=0.25, linewidth=0)
    axes.set(xlabel="env steps", ylabel="return (deterministic, mean of the episodes)", title=rows[0]["env"])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(png_path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    plot(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])

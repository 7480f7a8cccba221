"""Draw learning curves of single runs, and of algorithms over seeds."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.arms import COLOURS, LABELS
from benchmarks.common.picture import picture
from benchmarks.common.runs import Curve, Runs, read_rows, stacked
from benchmarks.common.scores import half_width

AXES = {"steps": "env steps", "seconds": "seconds of training", "updates": "policy updates"}

_WINDOW = 10
"""Evaluations over which the line of a single seed is averaged."""


_FOR_INTERVAL = 5
"""Least number of seeds for an interval: that of fewer reaches returns that do not exist."""


def draw_runs(png_path: Path, csv_paths: list[Path]) -> None:
    """
    Draw returns against env steps, one line a run: the mean of each evaluation, and the standard deviation of a single run.

    :param png_path: the picture to write
    :param csv_paths: one file a run
    """
    with picture(png_path, 120, figsize=(6, 4)) as (_, axes):
        for path in csv_paths:
            rows = read_rows(path)
            steps, mean, std = (np.array([float(row[key]) for row in rows]) for key in ("step", "mean_return", "std_return"))
            axes.plot(steps, mean, label=f"{rows[0]['algorithm']}, seed {rows[0]['seed']}")
            if len(csv_paths) == 1:
                axes.fill_between(steps, mean - std, mean + std, alpha=0.25, linewidth=0)
        axes.set(xlabel="env steps", ylabel="return (deterministic, mean of the episodes)", title=rows[0]["env"])
        axes.grid(alpha=0.3)
        axes.legend()


def conclude(folder: Path, score: float, at_least: float | None) -> int:
    """
    Draw the curve of a run that has ended, and judge its score.

    :param folder: of the run, with its ``curve.csv``
    :param score: of the final model
    :param at_least: what the score must reach; None: any score will do
    :return: exit status of the command: 1 if the score is lower
    """
    draw_runs(folder / "curve.png", [folder / "curve.csv"])
    print(f"learning curve: {folder / 'curve.png'}")
    if at_least is not None and score < at_least:
        print(f"the score is under {at_least}", file=sys.stderr)
        return 1
    return 0


def draw_comparison(
    path: Path,
    runs: Runs,
    columns: list[str],
    per_row: int = 2,
    zoo_runs: Runs | None = None,
    each_seed: bool = False,
) -> None:
    """
    Draw the mean over seeds, and its 95% interval by Student's t; with fewer than five seeds, the range of the seeds.

    :param path: the picture to write
    :param runs: every run
    :param columns: names of :data:`AXES` to draw each environment against, a panel for each of them
    :param per_row: panels in a row
    :param zoo_runs: runs whose mean over seeds is dashed
    :param each_seed: a line for each seed instead, for runs of different lengths, smoothed by the mean of ten evaluations
    """
    panels = [(env_id, column) for env_id in runs for column in columns]
    per_row = min(per_row, len(panels))
    rows = -(-len(panels) // per_row)
    size = (4.2 * per_row, 3.0 * rows)  # fonts stay legible at the width of a page
    with picture(path, 130, nrows=rows, ncols=per_row, figsize=size, squeeze=False) as (figure, axes):
        for axis, (env_id, column) in zip(axes.flat, panels, strict=False):
            for name, curves in runs[env_id].items():
                (_draw_seeds if each_seed else _draw_mean)(axis, name, curves, column)
            for name, curves in (zoo_runs or {}).get(env_id, {}).items():
                _draw_dashed(axis, name, curves, column)
            _finish_panel(axis, env_id, column)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
        lines = {label: line for label, line in lines.items() if not str(label).startswith("_")}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(per_row, len(lines)))


def _draw_seeds(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    for curve in curves:
        means = [curve.returns[max(0, end - _WINDOW) : end].mean() for end in range(1, len(curve.returns) + 1)]
        axis.plot(getattr(curve, column), curve.returns, color=COLOURS[name], linewidth=0.5, alpha=0.3)
        axis.plot(getattr(curve, column), means, color=COLOURS[name], linewidth=1.5, label=LABELS[name])


def _draw_mean(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    returns, x = stacked(curves, "returns"), stacked(curves, column).mean(axis=0)
    mean = returns.mean(axis=0)
    axis.plot(x, mean, color=COLOURS[name], label=LABELS[name])
    if len(curves) > 1:
        low, high = returns.min(axis=0), returns.max(axis=0)
        if len(curves) >= _FOR_INTERVAL:
            half = half_width(returns)
            low, high = mean - half, mean + half
        axis.fill_between(x, low, high, alpha=0.2, linewidth=0, color=COLOURS[name])


def _draw_dashed(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    x, mean = (stacked(curves, of).mean(axis=0) for of in (column, "returns"))
    axis.plot(x, mean, "--", color=COLOURS[name], linewidth=1, label=f"{LABELS[name]}, rl_zoo3.train")


def _finish_panel(axis: Any, env_id: str, column: str) -> None:
    axis.set(title=env_id, xlabel=AXES[column], ylabel="return")
    axis.grid(alpha=0.3)
    from matplotlib.ticker import EngFormatter, StrMethodFormatter  # late, as everything of matplotlib

    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if column == "seconds":
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))

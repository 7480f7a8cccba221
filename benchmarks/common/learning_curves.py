"""Draw learning curves of single runs, and of algorithms over seeds."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.arms import COLOURS, LABELS
from benchmarks.common.picture import picture
from benchmarks.common.runs import Curve, Runs, read_rows, stacked
from benchmarks.common.scores import half_width

AXES = {"steps": "env steps", "seconds": "seconds of training", "updates": "policy updates"}


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


def draw_comparison(
    path: Path,
    runs: Runs,
    columns: list[str],
    per_row: int = 3,
    zoo_runs: Runs | None = None,
    each_seed: bool = False,
) -> None:
    """
    Draw the mean over seeds, and its 95% interval by Student's t.

    :param path: the picture to write
    :param runs: every run
    :param columns: names of :data:`AXES` to draw each environment against, a panel for each of them
    :param per_row: panels in a row
    :param zoo_runs: runs whose mean over seeds is dashed
    :param each_seed: a line for each seed instead, for runs of different lengths
    """
    panels = [(env_id, column) for env_id in runs for column in columns]
    per_row = min(per_row, len(panels))
    rows = -(-len(panels) // per_row)
    size = (5 * per_row, 3.6 * rows)
    with picture(path, 110, nrows=rows, ncols=per_row, figsize=size, squeeze=False) as (figure, axes):
        for axis, (env_id, column) in zip(axes.flat, panels, strict=False):
            for name, curves in runs[env_id].items():
                (_draw_seeds if each_seed else _draw_mean)(axis, name, curves, column)
            for name, curves in (zoo_runs or {}).get(env_id, {}).items():
                _draw_dashed(axis, name, curves, column)
            _finish_panel(axis, env_id, column)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(per_row + 1, len(lines)))


def _draw_seeds(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    for curve in curves:
        axis.plot(getattr(curve, column), curve.returns, color=COLOURS[name], linewidth=1, label=LABELS[name])


def _draw_mean(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    returns, x = stacked(curves, "returns"), stacked(curves, column).mean(axis=0)
    mean = returns.mean(axis=0)
    axis.plot(x, mean, color=COLOURS[name], label=LABELS[name])
    if len(curves) > 1:
        half = half_width(returns)
        axis.fill_between(x, mean - half, mean + half, alpha=0.2, linewidth=0, color=COLOURS[name])


def _draw_dashed(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    x, mean = (stacked(curves, of).mean(axis=0) for of in (column, "returns"))
    axis.plot(x, mean, "--", color=COLOURS[name], linewidth=1, label=f"{LABELS[name]}, rl_zoo3.train")


def _finish_panel(axis: Any, env_id: str, column: str) -> None:
    axis.set(title=env_id, xlabel=AXES[column], ylabel="return")
    axis.grid(alpha=0.3)
    if column == "seconds":
        axis.set_xscale("log")
    else:
        axis.ticklabel_format(axis="x", scilimits=(0, 0))

"""The table and the pictures of :mod:`benchmarks.laboratory`."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.picture import picture
from benchmarks.common.runs import Curve, finals, read_rows, read_runs, stacked
from benchmarks.common.scores import bootstrap, half_width, mean_improvement, probability_of_improvement, summary
from benchmarks.common.tables import print_head, print_row

_REFERENCE = "trpo"
_BINS = 50
"""Points of the picture of the KL, each of several updates."""


def over_bound(updates: list[np.ndarray], target_kl: float) -> float:
    """
    Compute the share of updates whose KL exceeds the bound.

    :param updates: KL of every update, one array a seed
    :param target_kl: the bound, nats
    :return: the share
    """
    return float(np.mean(np.concatenate(updates) > target_kl * (1.0 + 1e-4)))  # the KL is measured in float32


def worst_fall(curve: Curve) -> float:
    """
    Find the largest fall of the return from one evaluation to the next.

    :param curve: a run
    :return: the fall; 0 if the return never fell
    """
    return float(max(0.0, -np.diff(curve.returns).min(initial=0.0)))


def read_updates(folder: Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """
    Read the KL of every update.

    :param folder: with ``ENV/RULE/seedN/updates.csv``
    :return: environment -> rule -> one array a seed
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for path in sorted(folder.glob("*/*/seed*/updates.csv")):
        kls = np.array([float(row["kl"]) for row in read_rows(path)])
        found.setdefault(path.parts[-4], {}).setdefault(path.parts[-3], []).append(kls)
    return found


def report(folder: Path, pictures: Path, labels: dict[str, str], target_kl: float = 0.03) -> None:
    """
    Print the table and draw the pictures.

    :param folder: of the runs
    :param pictures: folder to draw to
    :param labels: rule -> its label, in the order of the table
    :param target_kl: the bound, nats
    """
    runs, updates = read_runs(folder), read_updates(folder)
    print_head("env", "rule", "final return", "KL over the bound", "over twice the bound", "worst fall", "P(TRPO is better)")
    for env_id, sides in runs.items():
        for name in (name for name in labels if name in sides):
            falls = np.array([worst_fall(curve) for curve in sides[name]])
            shares = (f"{100.0 * over_bound(updates[env_id][name], times * target_kl):.1f}%" for times in (1.0, 2.0))
            against = "" if name == _REFERENCE else _against([sides], name)
            print_row(env_id, labels[name], summary(finals(sides[name])), *shares, summary(falls), against)
    for name in labels:
        shared = [sides for sides in runs.values() if {name, _REFERENCE} <= sides.keys()]
        if name != _REFERENCE and shared:
            print(f"\nProbability that TRPO is better than {labels[name]}, {len(shared)} envs: {_against(shared, name)}")
    _draw(pictures / "laboratory.png", runs, labels, _draw_curves)
    _draw(pictures / "laboratory_kl.png", updates, labels, _draw_kl, target_kl)


def _against(environments: list[dict[str, list[Curve]]], name: str) -> str:
    """Write the probability that a run of TRPO is better, with its 95% interval where there are seeds to resample."""
    strata = [finals(sides[side]) for side in (_REFERENCE, name) for sides in environments if _REFERENCE in sides]
    if not strata or len(strata) % 2:
        return ""
    if min(map(len, strata)) < 2:
        half = len(strata) // 2
        return f"{np.mean([probability_of_improvement(strata[i], strata[half + i]) for i in range(half)]):.2f}"
    low, high = bootstrap(mean_improvement, strata)
    return f"{mean_improvement(strata):.2f} [{low:.2f}, {high:.2f}]"


def _draw(path: Path, results: dict[str, Any], labels: dict[str, str], panel: Any, *arguments: float) -> None:
    """Draw a panel for each environment, with a line for each rule."""
    size = {"ncols": max(1, len(results)), "figsize": (4.2 * max(1, len(results)), 4.4), "squeeze": False}
    with picture(path, 110, **size) as (figure, axes):
        for axis, (env_id, sides) in zip(axes[0], results.items(), strict=True):
            for i, name in enumerate(labels):
                if name in sides:
                    panel(axis, sides[name], f"C{i}", labels[name], *arguments)
            axis.set(title=env_id)
            axis.grid(alpha=0.3)
        lines = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
        lines = {label: line for label, line in lines.items() if not label.startswith("_")}
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=max(1, min(2 * len(results), len(lines)))
        )


def _draw_curves(axis: Any, curves: list[Curve], colour: str, label: str) -> None:
    """Draw the mean over seeds and its 95% interval."""
    returns, steps = stacked(curves, "returns"), stacked(curves, "steps").mean(axis=0)
    mean = returns.mean(axis=0)
    axis.plot(steps, mean, color=colour, label=label, linewidth=1.2)
    if len(curves) > 1:
        half = half_width(returns)
        axis.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="env steps", ylabel="return")
    axis.ticklabel_format(axis="x", scilimits=(0, 0))


def _draw_kl(axis: Any, updates: list[np.ndarray], colour: str, label: str, target_kl: float) -> None:
    """Draw the median KL of several updates and seeds, the middle half of them, and the bound."""
    shortest = min(map(len, updates))
    kls = np.array([one[:shortest] for one in updates])
    parts = np.array_split(np.arange(shortest), min(_BINS, max(1, shortest)))
    low, middle, high = (np.array([np.quantile(kls[:, part], q) for part in parts]) for q in (0.25, 0.5, 0.75))
    x = [part.mean() + 1 for part in parts]
    axis.plot(x, middle, color=colour, label=label, linewidth=1.2)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.axhline(target_kl, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlabel="update", ylabel="KL of the update, nats", yscale="log")

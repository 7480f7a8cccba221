"""
Draw the log of a healthy run and of three sick ones, for the page that explains how to read it.

All four runs train on Hopper-v5 with the defaults, except for the settings of :data:`RUNS`::

    python -m benchmarks.sick_runs          # trains, writes benchmarks/results/sick_runs; five minutes
    python -m benchmarks.sick_runs --draw   # writes docs/img/sick_runs.png from these files
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor

from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.picture import picture
from benchmarks.common.runs import read_rows
from benchmarks.common.settings import FIXED_BOUND
from sb3_trpo import TRPO

FOLDER = RESULTS / "sick_runs"
N_STEPS = 60_000
_WINDOW = 5
"""Updates over which the curves are averaged."""


class Run(NamedTuple):
    """
    A run of the picture.

    :param label: its label
    :param colour: of its line
    :param settings: arguments of TRPO
    :param reward_scale: factor of the rewards that the algorithm sees
    """

    label: str
    colour: str
    settings: dict[str, Any]
    reward_scale: float = 1.0


RUNS = {
    "healthy": Run("healthy", "black", {}),
    "noise": Run(
        "fits noise: 16 states for each step, cg_damping=0.0001, target_kl=0.1",
        "tab:red",
        {"sub_sampling_factor": 64, "cg_damping": 1e-4, "cg_max_steps": 30, "target_kl": 0.1},
    ),
    "critic": Run("critic blind: rewards x 1,000, normalize_returns=False", "tab:blue", {"normalize_returns": False}, 1000.0),
    "entropy": Run("explores too much: ent_coef=0.1", "tab:orange", {"ent_coef": 0.1}),
}


class Panel(NamedTuple):
    """
    A metric of the picture.

    :param title: its title
    :param scale: scale of the vertical axis
    :param limits: of the vertical axis
    :param ticks: of the vertical axis; none: automatic
    """

    title: str
    scale: str = "linear"
    limits: tuple[float | None, float | None] = (None, None)
    ticks: tuple[float, ...] = ()


PANELS = {
    "rollout/ep_rew_mean": Panel("rollout/ep_rew_mean (raw rewards)"),
    "kl / target": Panel("kl_divergence_loss / target_kl", limits=(-0.05, 1.1)),
    "train/step_fraction": Panel("step_fraction", limits=(-0.05, 1.1)),
    "gain / expected": Panel("surrogate_gain / expected_gain", limits=(-0.05, 1.1)),
    "train/is_line_search_success": Panel("is_line_search_success", limits=(-0.05, 1.1)),
    "train/explained_variance": Panel("explained_variance", limits=(-0.1, 1.1)),
    "train/std": Panel("std", "log", ticks=(0.3, 1.0, 3.0)),
    "train/value_loss": Panel("value_loss", "log"),
}


def train(name: str, path: Path) -> None:
    """
    Train one run and keep its log.

    :param name: a key of :data:`RUNS`
    :param path: the file to write
    """
    run = RUNS[name]
    env = gym.wrappers.TransformReward(Monitor(gym.make("Hopper-v5")), lambda reward: run.reward_scale * float(reward))
    model = TRPO("MlpPolicy", env, seed=1, device="cpu", **{**FIXED_BOUND, **run.settings})
    with tempfile.TemporaryDirectory() as folder:
        model.set_logger(configure(folder, ["csv"]))
        model.learn(N_STEPS)
        model.logger.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "progress.csv", path)


def columns(path: Path) -> dict[str, np.ndarray]:
    """
    Read the numbers of a log, and derive the two ratios of the picture.

    :param path: the log
    :return: metric -> values, shape (updates,); NaN where a row has none
    """
    rows = read_rows(path)
    found = {key: np.array([_number(row.get(key)) for row in rows]) for key in (*PANELS, *_NEEDED)}
    found["kl / target"] = _ratio(found["train/kl_divergence_loss"], found["train/target_kl"])
    found["gain / expected"] = _ratio(found["train/surrogate_gain"], found["train/expected_gain"])
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where there was no step to measure."""
    ratio = np.full_like(above, np.nan)
    np.divide(above, below, out=ratio, where=below != 0.0)
    return ratio


_NEEDED = (
    *("train/kl_divergence_loss", "train/target_kl", "train/surrogate_gain", "train/expected_gain"),
    "time/total_timesteps",
)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # a text, such as the outcome
        return float("nan")


def smoothed(values: np.ndarray) -> np.ndarray:
    """
    Average each value with those before it.

    :param values: shape (updates,)
    :return: mean over the last :data:`_WINDOW` updates that have a value, shape (updates,)
    """
    windows = [values[max(0, end - _WINDOW) : end] for end in range(1, len(values) + 1)]
    return np.array([window[np.isfinite(window)].mean() if np.isfinite(window).any() else np.nan for window in windows])


def draw(path: Path) -> None:
    """
    Draw the runs.

    :param path: the picture to write
    """
    with picture(path, 130, nrows=4, ncols=2, figsize=(8, 10), sharex=True) as (figure, axes):
        for name, run in RUNS.items():
            found = columns(FOLDER / f"{name}.csv")
            for axis, metric in zip(axes.flat, PANELS, strict=True):
                steps = found["time/total_timesteps"] / 1000
                axis.plot(steps, smoothed(found[metric]), color=run.colour, label=run.label, linewidth=1.5)
        for axis, panel in zip(axes.flat, PANELS.values(), strict=True):
            axis.set_title(panel.title, fontsize=11)
            axis.set_yscale(panel.scale)
            axis.set_ylim(*panel.limits)
            axis.grid(alpha=0.3)
            if panel.ticks:
                axis.minorticks_off()
                axis.set_yticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        for axis in axes[-1]:
            axis.set_xlabel("thousand env steps")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1, fontsize=10)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="The log of a healthy run and of three sick ones.")
    parser.add_argument("--draw", action="store_true", help="draw the runs that there are, and train none")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train, or draw."""
    if parse(arguments).draw:
        draw(PICTURES / "sick_runs.png")
        return
    for name in RUNS:
        train(name, FOLDER / f"{name}.csv")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Read the ``curve.csv`` of runs and compute the figures of a run."""

import csv
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """
    One run.

    :param steps: env steps at the evaluations, shape (E,)
    :param returns: mean returns, shape (E,); the last is of the final model over 20 episodes
    :param seconds: of training, shape (E,)
    :param updates: of the policy, shape (E,); 0 where they were not counted
    """

    steps: np.ndarray
    returns: np.ndarray
    seconds: np.ndarray
    updates: np.ndarray


Runs = dict[str, dict[str, list[Curve]]]
"""Environment -> algorithm or variant -> one curve a seed."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """
    Read a CSV file.

    :param path: the file
    :return: its rows by column
    """
    with path.open() as file:
        return list(csv.DictReader(file))


def curve_files(folder: Path) -> list[Path]:
    """
    Find ``ENV/ALGORITHM/seedN/curve.csv``.

    :param folder: where to look
    :return: the files in the order of their names
    """
    return sorted(folder.glob("*/*/seed*/curve.csv"))


def read_runs(folder: Path) -> Runs:
    """
    Read the curve of every run of a folder.

    :param folder: with the files that :func:`curve_files` finds
    :return: every run
    """
    runs: Runs = {}
    for path in curve_files(folder):
        rows = read_rows(path)
        keys = ("step", "mean_return", "train_seconds", "updates")
        columns = (np.array([float(row.get(key, 0.0)) for row in rows]) for key in keys)
        runs.setdefault(path.parts[-4], {}).setdefault(path.parts[-3], []).append(Curve(*columns))
    return runs


def read_zoo_runs(path: Path) -> Runs:
    """
    Read many runs from one file that has no seconds of training.

    :param path: the file, the rows of a run in a row
    :return: every run
    """
    runs: Runs = {}
    for (env_id, name, _), found in groupby(read_rows(path), lambda row: (row["env"], row["algorithm"], row["seed"])):
        points = np.array([(float(row["step"]), float(row["mean_return"])) for row in found])
        nothing = np.zeros(len(points))
        runs.setdefault(env_id, {}).setdefault(name, []).append(Curve(points[:, 0], points[:, 1], nothing, nothing))
    return runs


def finals(runs: list[Curve]) -> np.ndarray:
    """
    Take the returns of the final models.

    :param runs: one a seed
    :return: shape (seeds,)
    """
    return np.array([run.returns[-1] for run in runs])


def stacked(runs: list[Curve], column: str) -> np.ndarray:
    """
    Stack a column of the runs up to the end of the shortest run.

    :param runs: one a seed
    :param column: a field of :class:`Curve`
    :return: shape (seeds, E)
    """
    shortest = min(len(run.returns) for run in runs)
    return np.array([getattr(run, column)[:shortest] for run in runs])


def seconds_to_reach(runs: list[Curve], score: float) -> float:
    """
    Find when the mean over seeds first reaches a score.

    :param runs: one a seed
    :param score: a return
    :return: seconds of training until then; infinity if it never does
    """
    reached = np.flatnonzero(stacked(runs, "returns").mean(axis=0) >= score)
    return float(stacked(runs, "seconds").mean(axis=0)[reached[0]]) if len(reached) else float("inf")

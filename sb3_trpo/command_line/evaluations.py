"""Says which runs the Zoo's plots of evaluations leave out, and refuses results that they cannot draw."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class EvaluationsRead:
    """
    Remembers the evaluations that ``all_plots`` reads, and prints which runs are not in its plots and tables.

    :param options: the command line of ``all_plots``
    """

    def __init__(self, options: Sequence[str]) -> None:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-max", "--max-timesteps", type=int, default=2_000_000)  # the script's own default
        parser.add_argument("-min", "--min-timesteps", type=int, default=-1)
        self._limits = parser.parse_known_args(options)[0]
        self._read: dict[Path, dict[Path, np.ndarray]] = {}

    def remember(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """
        Remember the steps of the evaluations in a file.

        :param load: ``numpy.load``
        :return: the patched function
        """

        def patched(file: Any, *args: Any, **kwargs: Any) -> Any:
            log = load(file, *args, **kwargs)
            if Path(file).name == "evaluations.npz":
                run = Path(file).parent
                self._read.setdefault(run.parent, {})[run] = log["timesteps"]
            return log

        return patched

    def report(self, legend: Callable[..., Any]) -> Callable[..., Any]:
        """
        Print the runs that were left out when all curves of an environment are drawn.

        :param legend: ``matplotlib.pyplot.legend``, which the script calls then
        :return: the patched function
        """

        def patched(*args: Any, **kwargs: Any) -> Any:
            for runs in self._read.values():
                for run, reason in left_out(runs, self._limits.max_timesteps, self._limits.min_timesteps).items():
                    print(f"Left out {run}: {reason}")
            self._read.clear()
            return legend(*args, **kwargs)

        return patched


def left_out(runs: dict[Path, np.ndarray], max_timesteps: int, min_timesteps: int) -> dict[Path, str]:
    """
    Find the runs that ``all_plots`` drops: it averages runs with the same number of evaluations.

    :param runs: env steps of the evaluations of every run of an algorithm, in the order in which they were read
    :param max_timesteps: evaluations after this many env steps are not drawn
    :param min_timesteps: a run of at least this many env steps decides the number of evaluations, and longer runs are thinned
        out to it; not positive: the longest run decides
    :return: the runs with the reasons
    """
    drawn = {run: steps for run, steps in runs.items() if len(steps) > 1}
    reasons = {run: "it has a single evaluation" for run in runs if run not in drawn}
    needed, grid = 0, np.empty(0)
    for steps in drawn.values():
        if len(steps) >= needed:
            grid = steps
        needed = max(needed, len(steps))
        grid = grid[: _within(grid[:needed], max_timesteps)]
        needed = len(grid)
    long_enough = [steps for steps in drawn.values() if 0 < min_timesteps <= steps[-1]]
    if long_enough:
        needed = _within(min(long_enough, key=len), max_timesteps)
    for run, steps in drawn.items():
        thinned = bool(long_enough) and steps[-1] >= min_timesteps
        if not thinned and len(steps) < needed:
            reasons[run] = f"it has {len(steps)} evaluations, and others have {needed}; `-min STEPS` keeps runs of that length"
    return reasons


def _within(steps: np.ndarray, max_timesteps: int) -> int:
    """Count the evaluations up to a number of env steps."""
    return int(np.searchsorted(steps, max_timesteps, side="right"))


def check_results(results: dict[str, Any], options: Sequence[str], path: str) -> None:
    """
    Refuse results that ``plot_from_file`` cannot draw.

    :param results: what ``all_plots`` wrote: environment -> algorithm -> curves
    :param options: the command line of ``plot_from_file``
    :param path: the file, for the message
    :raises SystemExit: naming the algorithm and the environment with too few runs
    """
    parser = argparse.ArgumentParser(add_help=False)
    for names in (("-skip", "--skip-envs"), ("--keep-envs",), ("--skip-keys",), ("--keep-keys",)):
        parser.add_argument(*names, nargs="+", default=[])
    parser.add_argument("--merge", nargs="+", default=[])
    chosen = parser.parse_known_args(options)[0]
    all_envs = [env for env in results if env != "results_table"]
    keys = _chosen(list(results[all_envs[0]]) if all_envs else [], chosen.skip_keys, chosen.keep_keys)
    envs = _chosen(all_envs, chosen.skip_envs, chosen.keep_envs)
    few = "`plot_from_file` needs two runs or more with equally many evaluations, and `all_plots` names those that it left out"
    if not keys or not envs:
        raise SystemExit(f"sb3-trpo: {path} has no runs to draw; {few}")
    if chosen.merge:  # other files can complete the results
        return
    for key in keys:
        missing = [env for env in envs if key not in results[env]]
        if missing:
            raise SystemExit(f"sb3-trpo: {path} has no run of {key} in {missing[0]}: leave out one of them, or train it there")
        if all(np.ndim(results[env][key]["last_evals"]) == 0 for env in envs):
            raise SystemExit(f"sb3-trpo: {path} has a single run of {key} in {' and '.join(envs)}; {few}")


def _chosen(names: list[str], skipped: Sequence[str], kept: Sequence[str]) -> list[str]:
    """Apply two options of the script."""
    return [name for name in names if name not in skipped and (not kept or name in kept)]

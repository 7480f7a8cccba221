"""
Print tables and draw plots of the runs in ``benchmarks/results/mujoco``, which ``benchmarks.mujoco`` wrote.

For every environment, the script prints the returns of the final models over seeds, the p of Welch's test against each peer,
and more statistics in a second table. Over all environments, it prints the interquartile mean of scores, scaled so that
sb3-contrib's mean is 1 and weighted so that environments count equally, with 95% intervals by the stratified bootstrap. It
also prints the optimality gap and the probability of improvement (all as in https://arxiv.org/abs/2108.13264). It draws
learning curves against env steps and against wall-clock time, and performance profiles. ::

    python -m benchmarks.report  # prints Markdown, writes mujoco_steps.png, mujoco_time.png and mujoco_profile.png to docs/img

The peers' runs in ``mujoco_rl_zoo_train.csv`` come from RL Zoo's own training command, not from ``benchmarks.mujoco``. They
end with an evaluation of 10 episodes, and have a separate table and dashed lines.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.common.arms import LABELS, OURS, PEER
from benchmarks.common.learning_curves import draw_comparison
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.picture import picture
from benchmarks.common.reliability import LAST, draw_profile, drawdown, last_evaluations, optimality_gap, steps_to, worst_fifth
from benchmarks.common.runs import Curve, Runs, finals, read_runs, read_zoo_runs, seconds_to_reach
from benchmarks.common.scores import (
    bootstrap,
    difference,
    half_width,
    interquartile_mean,
    interquartile_mean_over,
    mean_improvement,
    probability_of_improvement,
    scaled,
    testable,
    welch_p,
)
from benchmarks.common.tables import print_head, print_row

HEAD = ["env", "algorithm", "worst seed", "IQM", "difference of ours, 95%", "P(better)", "time to goal"]


def print_returns(runs: Runs) -> None:
    """
    Print a row for each environment: every algorithm's mean and interval, and the p of Welch's test against each peer.

    :param runs: every run
    """
    peers = [name for name in LABELS if name != OURS and any(name in found for found in runs.values())]
    print_head("env", LABELS[OURS], *(cell for name in peers for cell in (LABELS[name], "p")))
    for env_id, algorithms in runs.items():
        ours = finals(algorithms.get(OURS, []))
        cells = [mean_cell(ours)]
        for name in peers:
            scores = finals(algorithms.get(name, []))
            cells += [mean_cell(scores), p_cell(welch_p(ours, scores)) if testable(ours, scores) else ""]
        print_row(env_id, *cells)
    print()


def mean_cell(scores: np.ndarray) -> str:
    """
    Write the mean over seeds, its 95% interval if there is one, and the number of seeds.

    :param scores: one a seed
    :return: the cell, empty without a seed
    """
    if not len(scores):
        return ""
    half = f" ± {half_width(scores):,.0f}" if len(scores) > 1 else ""
    return f"{scores.mean():,.0f}{half} ({len(scores)})"


def p_cell(p: float) -> str:
    """
    Write the p of a test.

    :param p: the p
    :return: the cell
    """
    return f"{p:.2g}" if p >= 0.001 else "<0.001"


def print_environment(env_id: str, algorithms: dict[str, list[Curve]]) -> None:
    """
    Print a row for each algorithm.

    :param env_id: environment id
    :param algorithms: runs of each algorithm
    """
    ours = finals(algorithms.get(OURS, []))
    goal = finals(algorithms[PEER]).mean() if PEER in algorithms else np.nan
    for name in filter(algorithms.__contains__, LABELS):
        scores, seconds = finals(algorithms[name]), seconds_to_reach(algorithms[name], goal)
        cells = [LABELS[name], f"{scores.min():,.0f}", f"{interquartile_mean(scores):,.0f}"]
        reached = f"{seconds:.0f} s" if np.isfinite(seconds) else "not reached"
        print_row(env_id, *cells, *comparison_cells(name, ours, scores), reached if np.isfinite(goal) else "")


def comparison_cells(name: str, ours: np.ndarray, scores: np.ndarray) -> list[str]:
    """
    Compare the scores of one algorithm with ours.

    :param name: of the algorithm
    :param ours: one a seed
    :param scores: one a seed
    :return: its cells of the table, empty where a side has one seed, which has no interval
    """
    if name == OURS or min(len(ours), len(scores)) < 2:
        return ["", ""]
    low, high = bootstrap(difference, [ours, scores])
    return [f"[{low:+,.0f}, {high:+,.0f}]", f"{probability_of_improvement(ours, scores):.2f}"]


def print_aggregate(runs: Runs) -> None:
    """
    Print a table for each peer, over environments where both sides ran two seeds or more.

    :param runs: every run
    """
    for name in LABELS:
        shared = [env for env, found in runs.items() if all(len(found.get(side, [])) > 1 for side in (OURS, PEER, name))]
        if name == OURS or not shared:
            continue
        print(f"\nAgainst {LABELS[name]}, on {', '.join(shared)}:\n")
        print_head("", "interquartile mean", "95% interval")
        sides = [OURS, name] if name == PEER else [OURS, name, PEER]
        print_comparison(name, [finals(runs[env][side]) for side in sides for env in shared], len(shared))


def print_comparison(name: str, strata: list[np.ndarray], n_envs: int) -> None:
    """
    Print a row for each statistic.

    :param name: of the other side
    :param strata: our scores on every environment, then the other side's, at last those of the peer to scale by
    :param n_envs: number of environments
    """
    statistics: dict[str, tuple[str, Callable[[list[np.ndarray]], float]]] = {
        LABELS[OURS]: (".2f", lambda strata: interquartile_mean_over(scaled(strata, n_envs)[:n_envs])),
        LABELS[name]: (".2f", lambda strata: interquartile_mean_over(scaled(strata, n_envs)[n_envs : 2 * n_envs])),
        f"optimality gap, {LABELS[OURS]}": (".2f", lambda strata: optimality_gap(scaled(strata, n_envs)[:n_envs])),
        f"optimality gap, {LABELS[name]}": (".2f", lambda strata: optimality_gap(scaled(strata, n_envs)[n_envs : 2 * n_envs])),
        "difference": ("+.2f", lambda strata: difference(scaled(strata, n_envs)[: 2 * n_envs])),
        "probability of improvement": (".2f", lambda strata: mean_improvement(strata[: 2 * n_envs])),
    }
    for label, (form, statistic) in statistics.items():
        low, high = bootstrap(statistic, strata)
        print_row(label, f"{statistic(strata):{form}}", f"[{low:{form}}, {high:{form}}]")


def print_within_runs(runs: Runs) -> None:
    """
    Print a row for each environment and algorithm: bad seeds, and how a run moves.

    :param runs: every run
    """
    head = ["env", "algorithm", "final", f"last {LAST} evaluations", "worst fifth", "fall from the best", "steps to 90%"]
    print()
    print_head(*head)
    for env_id, algorithms in runs.items():
        for name in filter(algorithms.__contains__, LABELS):
            curves = algorithms[name]
            ends = [last_evaluations(curve) for curve in curves]
            last = f"{np.mean([end.mean() for end in ends]):,.0f} ± {np.mean([end.std() for end in ends]):,.0f}"
            scores = [finals(curves).mean(), worst_fifth(finals(curves)), np.mean([drawdown(curve) for curve in curves])]
            final, worst, fall = (f"{score:,.0f}" for score in scores)
            steps = np.mean([steps_to(curve, 0.9) for curve in curves])
            print_row(env_id, LABELS[name], final, last, worst, fall, f"{steps / 1e6:.2f}M")


def draw_profiles(runs: Runs) -> None:
    """
    Draw the performance profiles of ours and sb3-contrib's TRPO.

    :param runs: every run
    """
    shared = [env for env, found in runs.items() if {OURS, PEER} <= found.keys()]
    strata = scaled([finals(runs[env][side]) for side in (OURS, PEER) for env in shared], len(shared))
    sides = {OURS: strata[: len(shared)], PEER: strata[len(shared) :]}
    with picture(PICTURES / "mujoco_profile.png", 120, figsize=(6, 3.6)) as (_, axis):
        draw_profile(axis, sides, np.linspace(0.0, 3.0, 301))


def print_zoo_runs(runs: Runs) -> None:
    """
    Print a row for each environment and algorithm.

    :param runs: those of RL Zoo's own training command
    """
    print()
    print_head("env", "algorithm, `rl_zoo3.train`", "seeds", "last evaluations", "mean")
    for env_id, algorithms in sorted(runs.items()):
        for name, curves in algorithms.items():
            scores = finals(curves)
            each = ", ".join(f"{score:,.0f}" for score in scores)
            print_row(env_id, LABELS[name], str(len(scores)), each, f"{scores.mean():,.0f}")


def main(arguments: list[str]) -> None:
    """Print the tables and draw the curves."""
    argparse.ArgumentParser(description="Tables and plots of the MuJoCo runs.").parse_args(arguments)
    runs, zoo_runs = read_runs(RESULTS / "mujoco"), read_zoo_runs(RESULTS / "mujoco_rl_zoo_train.csv")
    print_returns(runs)
    print_head(*HEAD)
    for env_id, algorithms in runs.items():
        print_environment(env_id, algorithms)
    print_aggregate(runs)
    print_within_runs(runs)
    print_zoo_runs(zoo_runs)
    draw_comparison(PICTURES / "mujoco_steps.png", runs, ["steps"], zoo_runs=zoo_runs)
    draw_comparison(PICTURES / "mujoco_time.png", runs, ["seconds"])
    draw_profiles(runs)


if __name__ == "__main__":
    main(sys.argv[1:])

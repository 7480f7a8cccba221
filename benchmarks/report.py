"""
Tables and plots of the runs in ``benchmarks/results/mujoco``, which ``benchmarks.mujoco`` wrote.

Prints, for every environment, the returns of the final models over seeds and the difference to each peer; and over
environments the interquartile mean of scores, scaled so that sb3-contrib's mean is 1 and weighed so that environments count
equally, with 95% intervals by the stratified bootstrap, and the probability of improvement (both as in
https://arxiv.org/abs/2108.13264). Draws learning curves against env steps and against wall-clock. ::

    python -m benchmarks.report  # prints Markdown, writes docs/img/mujoco_steps.png and docs/img/mujoco_time.png

The peers' runs in ``mujoco_rl_zoo_train.csv`` come from RL Zoo's own training command, not from ``benchmarks.mujoco``: they
end with an evaluation of 10 episodes. They have a table of their own, and dashed lines.
"""

import csv
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "benchmarks" / "results" / "mujoco"
ZOO_RUNS = ROOT / "benchmarks" / "results" / "mujoco_rl_zoo_train.csv"
NAMES = {
    "sb3_trpo": "sb3-trpo",
    "sb3_vine_trpo": "vine",
    "sb3_contrib_trpo": "sb3-contrib TRPO",
    "sb3_ppo": "SB3 PPO",
    "sb3_trpo_no_entropy": "sb3-trpo, ent_coef=0",
    "sb3_trpo_fixed": "sb3-trpo, target_kl=0.01",
    "sb3_trpo_batch128": "sb3-trpo, target_kl=0.01 batch_size=128",
    "sb3_trpo_paper_cnn": "sb3-trpo, policy=PaperCnnPolicy",
}
COLOURS = {name: f"C{i}" for i, name in enumerate(NAMES)}
AXES = {"steps": "env steps", "seconds": "seconds of training", "updates": "policy updates"}
OURS, PEER = "sb3_trpo", "sb3_contrib_trpo"
N_BOOTSTRAP = 10_000


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
"""Environment -> algorithm -> one curve a seed."""


def read_runs(folder: Path) -> Runs:
    """
    :param folder: with ``ENV/ALGORITHM/seedN/curve.csv``
    :return: every run
    """
    runs: Runs = {}
    for path in sorted(folder.glob("*/*/seed*/curve.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        keys = ("step", "mean_return", "train_seconds", "updates")
        columns = (np.array([float(row.get(key, 0.0)) for row in rows]) for key in keys)
        runs.setdefault(path.parts[-4], {}).setdefault(path.parts[-3], []).append(Curve(*columns))
    return runs


def read_zoo_runs(path: Path) -> Runs:
    """
    :param path: rows of many runs, without seconds of training
    :return: every run
    """
    with path.open() as file:
        rows = list(csv.DictReader(file))
    runs: Runs = {}
    for (env_id, name, _), found in groupby(rows, lambda row: (row["env"], row["algorithm"], row["seed"])):
        points = np.array([(float(row["step"]), float(row["mean_return"])) for row in found])
        nothing = np.zeros(len(points))
        runs.setdefault(env_id, {}).setdefault(name, []).append(Curve(points[:, 0], points[:, 1], nothing, nothing))
    return runs


def interquartile_mean(scores: np.ndarray) -> float:
    """
    :param scores: any shape
    :return: mean of the middle half; of what is left out at each end, a part of a score is kept whole
    """
    return float(stats.trim_mean(scores.ravel(), 0.25))


def interquartile_mean_over(strata: list[np.ndarray]) -> float:
    """
    :param strata: scores of the seeds of each environment
    :return: mean of the middle half of all scores, where environments count equally, however many seeds they have
    """
    times = np.lcm.reduce([len(stratum) for stratum in strata])
    return interquartile_mean(np.concatenate([np.repeat(stratum, times // len(stratum)) for stratum in strata]))


def bootstrap(statistic: Callable[[list[np.ndarray]], float], strata: list[np.ndarray]) -> tuple[float, float]:
    """
    95% interval by resampling the seeds of each stratum.

    :param statistic: of the strata
    :param strata: scores of the seeds of an environment and an algorithm
    :return: lower and upper end
    """
    rng = np.random.default_rng(0)
    draws = [statistic([rng.choice(stratum, len(stratum)) for stratum in strata]) for _ in range(N_BOOTSTRAP)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, peer: np.ndarray) -> float:
    """
    :param ours: one score a seed
    :param peer: one score a seed
    :return: P(a run of ours beats one of the peer's), ties counting half
    """
    gain = ours[:, None] - peer[None, :]
    return float(np.mean((gain > 0.0) + 0.5 * (gain == 0.0)))


def mean_improvement(strata: list[np.ndarray]) -> float:
    """
    :param strata: our scores on every environment, then the peer's
    :return: mean probability of improvement over environments
    """
    half = len(strata) // 2
    return float(np.mean([probability_of_improvement(strata[i], strata[half + i]) for i in range(half)]))


def difference(strata: list[np.ndarray]) -> float:
    """
    :param strata: our scores on every environment, then the peer's
    :return: our interquartile mean less the peer's
    """
    half = len(strata) // 2
    return interquartile_mean_over(strata[:half]) - interquartile_mean_over(strata[half:])


def scaled(strata: list[np.ndarray], n_envs: int) -> list[np.ndarray]:
    """
    :param strata: scores of one side on every environment, then the next side's, at last those of the peer to scale by
    :param n_envs: number of environments
    :return: the scores divided by the peer's mean on their environment
    """
    scale = [scores.mean() for scores in strata[-n_envs:]]
    return [scores / scale[i % n_envs] for i, scores in enumerate(strata)]


def finals(runs: list[Curve]) -> np.ndarray:
    """
    :param runs: one a seed
    :return: returns of the final models, shape (seeds,)
    """
    return np.array([run.returns[-1] for run in runs])


def stacked(runs: list[Curve], column: str) -> np.ndarray:
    """
    :param runs: one a seed
    :param column: a field of :class:`Curve`
    :return: its values up to the end of the shortest run, shape (seeds, E)
    """
    shortest = min(len(run.returns) for run in runs)
    return np.array([getattr(run, column)[:shortest] for run in runs])


def seconds_to_reach(runs: list[Curve], score: float) -> float:
    """
    :param runs: one a seed
    :param score: a return
    :return: seconds of training until the mean over seeds first reaches it; infinity if it never does
    """
    reached = np.flatnonzero(stacked(runs, "returns").mean(axis=0) >= score)
    return float(stacked(runs, "seconds").mean(axis=0)[reached[0]]) if len(reached) else float("inf")


def print_environment(env_id: str, algorithms: dict[str, list[Curve]]) -> None:
    """
    One table row an algorithm.

    :param env_id: environment id
    :param algorithms: runs of each algorithm
    """
    ours = finals(algorithms.get(OURS, []))
    goal = finals(algorithms[PEER]).mean() if PEER in algorithms else np.nan
    for name in NAMES:
        if name not in algorithms:
            continue
        runs = algorithms[name]
        scores = finals(runs)
        half = f" ± {stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores):.0f}" if len(scores) > 1 else ""
        cells = [env_id, NAMES[name], str(len(scores)), f"{scores.mean():.0f}{half}", f"{scores.min():.0f}"]
        seconds = seconds_to_reach(runs, goal)
        reached = f"{seconds:.0f} s" if np.isfinite(seconds) else "not reached"
        cells += [f"{interquartile_mean(scores):.0f}", reached if np.isfinite(goal) else ""]
        if name == OURS or min(len(ours), len(scores)) < 2:  # one seed has no interval
            cells += ["", ""]
        else:
            low, high = bootstrap(difference, [ours, scores])
            cells += [f"[{low:+.0f}, {high:+.0f}]", f"{probability_of_improvement(ours, scores):.2f}"]
        print(f"| {' | '.join(cells)} |")


def print_aggregate(runs: Runs) -> None:
    """
    Over environments where both sides ran two seeds or more.

    :param runs: every run
    """
    for name in NAMES:
        shared = [env for env, found in runs.items() if all(len(found.get(side, [])) > 1 for side in (OURS, PEER, name))]
        if name == OURS or not shared:
            continue
        print(f"\nAgainst {NAMES[name]}, on {', '.join(shared)}:\n\n| | interquartile mean | 95% interval |\n|---|---|---|")
        sides = [OURS, name] if name == PEER else [OURS, name, PEER]
        print_comparison(name, [finals(runs[env][side]) for side in sides for env in shared], len(shared))


def print_comparison(name: str, strata: list[np.ndarray], n_envs: int) -> None:
    """
    One table row a statistic.

    :param name: of the other side
    :param strata: our scores on every environment, then the other side's, at last those of the peer to scale by
    :param n_envs: number of environments
    """
    statistics: dict[str, tuple[str, Callable[[list[np.ndarray]], float]]] = {
        NAMES[OURS]: (".2f", lambda strata: interquartile_mean_over(scaled(strata, n_envs)[:n_envs])),
        NAMES[name]: (".2f", lambda strata: interquartile_mean_over(scaled(strata, n_envs)[n_envs : 2 * n_envs])),
        "difference": ("+.2f", lambda strata: difference(scaled(strata, n_envs)[: 2 * n_envs])),
        "probability of improvement": (".2f", lambda strata: mean_improvement(strata[: 2 * n_envs])),
    }
    for label, (form, statistic) in statistics.items():
        low, high = bootstrap(statistic, strata)
        print(f"| {label} | {statistic(strata):{form}} | [{low:{form}}, {high:{form}}] |")


def print_zoo_runs(runs: Runs) -> None:
    """
    One table row an environment and algorithm.

    :param runs: those of RL Zoo's own training command
    """
    print("\n| env | algorithm, `rl_zoo3.train` | seeds | last evaluations, 10 episodes | mean |\n|---|---|---|---|---|")
    for env_id, algorithms in sorted(runs.items()):
        for name, curves in algorithms.items():
            scores = finals(curves)
            each = ", ".join(f"{score:.0f}" for score in scores)
            print(f"| {env_id} | {NAMES[name]} | {len(scores)} | {each} | {scores.mean():.0f} |")


def draw(
    path: Path,
    runs: Runs,
    columns: list[str],
    per_row: int = 3,
    zoo_runs: Runs | None = None,
    each_seed: bool = False,
) -> None:
    """
    Mean over seeds, and its 95% interval by Student's t.

    :param path: the picture to write
    :param runs: every run
    :param columns: what to draw each environment against, a panel for each of them: names of :data:`AXES`
    :param per_row: panels in a row
    :param zoo_runs: mean over seeds of these too, dashed
    :param each_seed: a line for each seed instead, for runs of different lengths
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [(env_id, column) for env_id in runs for column in columns]
    per_row = min(per_row, len(panels))
    rows = -(-len(panels) // per_row)
    figure, axes = plt.subplots(rows, per_row, figsize=(5 * per_row, 3.6 * rows), layout="constrained", squeeze=False)
    for axis, (env_id, column) in zip(axes.flat, panels, strict=False):
        for name, curves in runs[env_id].items():
            if each_seed:
                for curve in curves:
                    axis.plot(getattr(curve, column), curve.returns, color=COLOURS[name], linewidth=1, label=NAMES[name])
            else:
                _draw_mean(axis, name, curves, column)
        for name, curves in (zoo_runs or {}).get(env_id, {}).items():
            x, mean = (stacked(curves, of).mean(axis=0) for of in (column, "returns"))
            label = f"{NAMES[name]}, rl_zoo3.train"
            axis.plot(x, mean, "--", color=COLOURS[name], linewidth=1, label=label)
        axis.set(title=env_id, xlabel=AXES[column], ylabel="return")
        axis.grid(alpha=0.3)
        if column == "seconds":
            axis.set_xscale("log")
        else:
            axis.ticklabel_format(axis="x", scilimits=(0, 0))
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(per_row + 1, len(lines)))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_mean(axis: Any, name: str, curves: list[Curve], column: str) -> None:
    returns, x = stacked(curves, "returns"), stacked(curves, column).mean(axis=0)
    mean = returns.mean(axis=0)
    axis.plot(x, mean, color=COLOURS[name], label=NAMES[name])
    if len(curves) > 1:
        half = stats.t.ppf(0.975, len(curves) - 1) * stats.sem(returns, axis=0)
        axis.fill_between(x, mean - half, mean + half, alpha=0.2, linewidth=0, color=COLOURS[name])


def main() -> None:
    """Print the tables and draw the curves."""
    runs = read_runs(RUNS)
    head = ["env", "algorithm", "seeds", "mean, 95% interval", "worst seed", "interquartile mean"]
    head += ["time to sb3-contrib's mean", "difference of ours, 95%", "probability of improvement"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for env_id, algorithms in runs.items():
        print_environment(env_id, algorithms)
    print_aggregate(runs)
    zoo_runs = read_zoo_runs(ZOO_RUNS)
    print_zoo_runs(zoo_runs)
    images = ROOT / "docs" / "img"
    draw(images / "mujoco_steps.png", runs, ["steps"], zoo_runs=zoo_runs)
    draw(images / "mujoco_time.png", runs, ["seconds"])


if __name__ == "__main__":
    main()

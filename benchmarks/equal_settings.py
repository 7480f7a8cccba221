"""
Does speed cost learning? Curves of sb3-trpo and sb3-contrib's TRPO with the same hyperparameters, from the rows of
``benchmarks.train``: the mean over seeds, and the 95% interval of the difference (Welch's t) of two scores of a run: the mean
return over its curve, and that of its final model.

The same trust region means ``target_kl`` and ``cg_damping`` times the action dimension d. The runs::

    for seed in 0 1 2 3 4; do
      python -m benchmarks.train --algo sb3_contrib_trpo --env HalfCheetah-v5 --steps 5e5 --seed $seed \\
        --out benchmarks/results/equal_settings/HalfCheetah-v5/sb3_contrib_trpo/seed$seed
      python -m benchmarks.train --env HalfCheetah-v5 --steps 5e5 --seed $seed --set target_kl=0.06 cg_damping=0.6 \\
        --out benchmarks/results/equal_settings/HalfCheetah-v5/sb3_trpo/seed$seed
    done  # and Hopper-v5 with target_kl=0.03 cg_damping=0.3
    python -m benchmarks.equal_settings  # the table, and docs/img/equal_settings.png
"""

import argparse

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.report import ROOT, read_runs

RUNS = ROOT / "benchmarks" / "results" / "equal_settings"
NAMES = {"sb3_trpo": "sb3-trpo", "sb3_contrib_trpo": "sb3-contrib"}


def difference(ours: np.ndarray, peer: np.ndarray) -> tuple[float, float, float]:
    """
    Welch's interval.

    :param ours: one score a seed
    :param peer: one score a seed
    :return: difference of the means, and its 95% interval
    """
    interval = stats.ttest_ind(ours, peer, equal_var=False).confidence_interval(0.95)
    return float(ours.mean() - peer.mean()), float(interval.low), float(interval.high)


def main() -> None:
    """Print the table and draw the curves."""
    argparse.ArgumentParser(description="Curves at equal hyperparameters, and their differences.").parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    print("| env | score of a run | sb3-trpo | sb3-contrib | difference, 95% interval |\n|---|---|---|---|---|")
    environments = read_runs(RUNS)
    figure, axes = plt.subplots(1, len(environments), figsize=(6 * len(environments), 4), layout="constrained")
    for (env_id, algorithms), axis in zip(environments.items(), axes, strict=True):
        curves = {name: np.array([run.returns for run in algorithms[name]]) for name in NAMES}
        for name, returns in curves.items():
            steps = algorithms[name][0].steps
            (line,) = axis.plot(steps, returns.mean(axis=0), label=f"{NAMES[name]}, mean of {len(returns)} seeds")
            for one in returns:
                axis.plot(steps, one, color=line.get_color(), alpha=0.25, linewidth=0.8)
        axis.set(xlabel="env steps", ylabel="return (deterministic)", title=env_id)
        axis.grid(alpha=0.3)
        axis.legend()
        ours, peer = curves["sb3_trpo"], curves["sb3_contrib_trpo"]
        for label, a, b in (("mean over the curve", ours.mean(1), peer.mean(1)), ("final model", ours[:, -1], peer[:, -1])):
            middle, low, high = difference(a, b)
            print(f"| {env_id} | {label} | {a.mean():.0f} | {b.mean():.0f} | {middle:+.0f} [{low:.0f}, {high:.0f}] |")
    figure.savefig(ROOT / "docs" / "img" / "equal_settings.png", dpi=120)


if __name__ == "__main__":
    main()

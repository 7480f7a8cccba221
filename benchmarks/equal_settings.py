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

import csv
from pathlib import Path

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "benchmarks" / "results" / "equal_settings"
NAMES = {"sb3_trpo": "sb3-trpo", "sb3_contrib_trpo": "sb3-contrib"}


def read_curves(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    :param folder: one folder a seed
    :return: env steps, shape (E,); mean returns, shape (seeds, E); seconds of training, shape (seeds,)
    """
    runs = []
    for path in sorted(folder.glob("seed*/curve.csv")):
        with path.open() as file:
            runs.append(
                [[float(row[key]) for key in ("step", "mean_return", "train_seconds")] for row in csv.DictReader(file)]
            )
    curves = np.array(runs)
    return curves[0, :, 0], curves[:, :, 1], curves[:, -1, 2]


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    print("| env | score of a run | sb3-trpo | sb3-contrib | difference, 95% interval |\n|---|---|---|---|---|")
    folders = sorted(RUNS.iterdir())
    figure, axes = plt.subplots(1, len(folders), figsize=(6 * len(folders), 4), layout="constrained")
    for folder, axis in zip(folders, axes, strict=True):
        curves = {name: read_curves(folder / name) for name in NAMES}
        for name, (steps, returns, _) in curves.items():
            (line,) = axis.plot(steps, returns.mean(axis=0), label=f"{NAMES[name]}, mean of {len(returns)} seeds")
            for one in returns:
                axis.plot(steps, one, color=line.get_color(), alpha=0.25, linewidth=0.8)
        axis.set(xlabel="env steps", ylabel="return (deterministic)", title=folder.name)
        axis.grid(alpha=0.3)
        axis.legend()
        _, ours, _ = curves["sb3_trpo"]
        _, peer, _ = curves["sb3_contrib_trpo"]
        for label, a, b in (("mean over the curve", ours.mean(1), peer.mean(1)), ("final model", ours[:, -1], peer[:, -1])):
            middle, low, high = difference(a, b)
            print(f"| {folder.name} | {label} | {a.mean():.0f} | {b.mean():.0f} | {middle:+.0f} [{low:.0f}, {high:.0f}] |")
        seconds = [curves[name][2].mean() for name in NAMES]
        print(f"| {folder.name} | seconds of training | {seconds[0]:.0f} | {seconds[1]:.0f} | |")
    figure.savefig(ROOT / "docs" / "img" / "equal_settings.png", dpi=120)


if __name__ == "__main__":
    main()

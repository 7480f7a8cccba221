"""
Table and plot of the runs in ``benchmarks/results/atari``, which ``benchmarks.atari`` wrote.

Whole games, unclipped returns, the policy's own random actions. An unfinished run has no ``run.json``; its score is that of
the last games of its training. ::

    python -m benchmarks.atari_report  # prints Markdown, writes docs/img/atari.png
"""

import csv
import json

from benchmarks.report import NAMES, ROOT, draw, read_runs

RESULTS = ROOT / "benchmarks" / "results" / "atari"


def main() -> None:
    """Print the table and draw the curves."""
    print("| game | algorithm | seed | env steps | time | return, mean ± std of the games |\n|---|---|---|---|---|---|")
    for path in sorted(RESULTS.glob("*/*/seed*/curve.csv")):
        with path.open() as file:
            last = list(csv.DictReader(file))[-1]
        finished = path.with_name("run.json")
        score = json.loads(finished.read_text()) if finished.exists() else last
        steps = int(score.get("steps") or last["step"])
        cells = [last["env"], NAMES[path.parts[-3]], last["seed"], f"{steps:,}"]
        cells += [f"{float(last['train_seconds']) / 60:.0f} min"]
        cells += [f"{float(score['mean_return']):.1f} ± {float(score['std_return']):.1f} ({score['games']})"]
        print(f"| {' | '.join(cells)}{'' if finished.exists() else ', unfinished'} |")
    draw(ROOT / "docs" / "img" / "atari.png", read_runs(RESULTS), ["steps"], each_seed=True)


if __name__ == "__main__":
    main()

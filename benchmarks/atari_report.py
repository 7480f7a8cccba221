"""
Print a table and draw a plot of the runs in ``benchmarks/results/atari``, which ``benchmarks.atari`` wrote.

The scores are unclipped returns of whole games with random actions of the policy. An unfinished run has no ``run.json``; its
score is that of the last games of its training. ::

    python -m benchmarks.atari_report  # prints Markdown, writes docs/img/atari.png
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.common.arms import LABELS
from benchmarks.common.learning_curves import draw_comparison
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.runs import curve_files, read_rows, read_runs
from benchmarks.common.tables import print_head, print_row

RUNS = RESULTS / "atari"
SHIPPED = ("sb3_trpo", "sb3_trpo_paper_cnn", "sb3_ppo")
"""The shipped settings, with both networks, and the peer. Runs of other settings have a table of their own."""


def cells(path: Path) -> list[str]:
    """
    Describe one run.

    :param path: its ``curve.csv``
    :return: its row of the table
    """
    last, finished = read_rows(path)[-1], path.with_name("run.json")
    score = json.loads(finished.read_text()) if finished.exists() else last
    steps = int(score.get("steps") or last["step"])
    games = f"{float(score['mean_return']):,.1f} ± {float(score['std_return']):,.1f} ({score['games']})"
    games += "" if finished.exists() else ", unfinished"
    minutes = f"{float(last['train_seconds']) / 60:.0f} min"
    return [last["env"].replace("NoFrameskip-v4", ""), LABELS[path.parts[-3]], last["seed"], f"{steps:,}", minutes, games]


def main(arguments: list[str]) -> None:
    """Print the table and draw the curves."""
    argparse.ArgumentParser(description="Table and plot of the Atari runs.").parse_args(arguments)
    for shipped in (True, False):
        print_head("game", "algorithm", "seed", "env steps", "time", "return, mean ± std (games)")
        for path in curve_files(RUNS):
            if (path.parts[-3] in SHIPPED) == shipped:
                print_row(*cells(path))
        print()
    runs = {
        game.replace("NoFrameskip-v4", ""): {name: found[name] for name in SHIPPED if name in found}
        for game, found in read_runs(RUNS).items()
    }
    drawn = {game: found for game, found in runs.items() if found}
    draw_comparison(PICTURES / "atari.png", drawn, ["steps"], each_seed=True)


if __name__ == "__main__":
    main(sys.argv[1:])

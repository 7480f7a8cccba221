"""
Draw learning curves from the rows that ``benchmarks.train`` writes, with one line per run.

Example::

    python -m benchmarks.plot docs/img/halfcheetah.png benchmarks/results/halfcheetah_default/seed*/curve.csv
"""

import argparse
import sys
from pathlib import Path

from benchmarks.common.learning_curves import draw_runs


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Draw learning curves, one line a run.")
    parser.add_argument("png", type=Path, help="the picture to write")
    parser.add_argument("curves", type=Path, nargs="+", help="curve.csv of each run")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Draw."""
    options = parse(arguments)
    draw_runs(options.png, options.curves)


if __name__ == "__main__":
    main(sys.argv[1:])

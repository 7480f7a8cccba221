"""Print Markdown tables, each row as soon as it is measured."""

from collections.abc import Sequence
from importlib.metadata import version

import torch as th


def print_head(*cells: str) -> None:
    """Print the first two lines of a table."""
    print("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    print(f"|{'---|' * len(cells)}", flush=True)


def print_row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def print_speed_head(packages: Sequence[str], device: str, rounds: int) -> None:
    """
    Print versions, hardware and rounds, and the first lines of a table of speed.

    :param packages: packages whose versions are printed
    :param device: of the models
    :param rounds: turns of both sides
    """
    where = "one thread" if device == "cpu" else f"one thread and an {th.cuda.get_device_name(device)}"
    print(", ".join(f"{package} {version(package)}" for package in packages) + f"; {where}; {rounds} rounds\n")
    print_head("case", "measured", "ours", "peer", "floor", "aim")

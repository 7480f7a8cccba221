"""Define the command-line arguments that the training scripts share."""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml


def training_parser(description: str, algorithms: Sequence[str], seed: int | None = None) -> argparse.ArgumentParser:
    """
    Make a parser of the arguments that every training takes.

    :param description: purpose of the command
    :param algorithms: names of :data:`~benchmarks.common.arms.ALGORITHMS` that it can train
    :param seed: the seed of a command line without one; None: it must name one
    :return: the parser, to which a script adds its own arguments
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--algo", choices=algorithms, default="sb3_trpo")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--seed", type=int, required=seed is None, default=seed)
    add_settings(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


def experiment_parser(
    description: str, out: Path, environments: Collection[str], arms: Collection[str]
) -> argparse.ArgumentParser:
    """
    Make a parser of the arguments that every experiment of many runs takes.

    :param description: purpose of the command
    :param out: the default folder of the runs
    :param environments: ids that it can train
    :param arms: names of the algorithms that it can train
    :return: the parser, to which a script adds its own arguments
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=out, help="folder of the runs")
    parser.add_argument("--env", nargs="+", choices=environments, default=list(environments), help="environments to train")
    parser.add_argument("--algo", nargs="+", choices=arms, default=list(arms), help="algorithms to train")
    parser.add_argument("--report", action="store_true", help="print the table and draw instead of training")
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set`` to a parser; :func:`parse_settings` reads its values."""
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters, as YAML values")


def add_evaluations(parser: argparse.ArgumentParser) -> None:
    """Add how often and how long a training is evaluated to a parser."""
    parser.add_argument("--eval-freq", type=count, default=20_000, help="env steps between two evaluations")
    parser.add_argument("--eval-episodes", type=count, default=10)
    parser.add_argument("--final-episodes", type=count, default=20, help="episodes of the last evaluation")


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add what someone who waits for a single training asks for to a parser."""
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--at-least", type=float, help="fail if the final score is lower")


def count(text: str) -> int:
    """
    Read a whole number; ``1e6`` is one.

    :param text: of an argument
    :return: the number
    :raises argparse.ArgumentTypeError: if it is no whole number of at least 1
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value >= 1.0 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return int(value)


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """
    Read hyperparameters from a command line.

    :param items: ``NAME=VALUE``, the values as YAML
    :return: hyperparameters by name
    :raises SystemExit: if an item has no ``=``
    """
    return {name: _read(value) for name, value in map(_split, items)}


def _split(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not (name and equals):
        raise SystemExit(f"`--set` takes NAME=VALUE, not {item!r}")
    return name, value


def _read(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for a word
    except ValueError:
        return value

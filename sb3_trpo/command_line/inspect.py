"""The command ``sb3-trpo inspect``: prints what saved files hold, without running anything in them."""

import argparse
import os
import sys
from collections.abc import Sequence

from sb3_trpo.saving.inspection import inspect_file


def inspect(program: str, options: Sequence[str]) -> None:
    """
    Run the command.

    :param program: its name, for the help text
    :param options: the command line after the name
    :raises SystemExit: with the help text, or an error message if a file cannot be read; silently if nobody reads the output
    """
    description = "Print what saved files hold and what they would run. Nothing in them runs."
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a model, a policy, the statistics of VecNormalize or a checkpoint"
    )
    for path in parser.parse_args(options).files:
        try:
            text = inspect_file(path)
        except (OSError, ValueError) as error:
            raise SystemExit(f"sb3-trpo: {error}") from error
        try:
            print(text, flush=True)
        except BrokenPipeError as error:  # a reader such as `head` has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
            raise SystemExit(1) from error

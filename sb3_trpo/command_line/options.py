"""Reads the options of RL Zoo's scripts, as argparse does."""

from collections.abc import Iterator, Sequence


def abbreviates(name: str, option: str, shortest: str) -> bool:
    """
    Tell whether the Zoo's scripts read a name as an option: argparse accepts unambiguous prefixes.

    :param name: the name on the command line
    :param option: full name of the option
    :param shortest: its shortest prefix that no other option has
    :return: whether they do
    """
    return option.startswith(name) and name.startswith(shortest)


def values(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """
    Iterate over the options, each with its value after ``=`` or the next argument.

    :param options: the command line
    :return: names and values
    """
    for option, following in zip(options, [*options, ""][1:], strict=True):
        name, _, joined = option.partition("=")
        yield name, joined or following


def asks_for_help(options: Sequence[str]) -> bool:
    """
    Tell whether a command line asks for the list of options.

    :param options: the command line
    :return: whether it does
    """
    return bool({"-h", "--help"} & set(options))

"""Options are read as argparse reads them."""

import pytest

from sb3_trpo.command_line.options import abbreviates, asks_for_help, values


def test_prefixes_from_the_shortest_on() -> None:
    assert all(abbreviates(name, "--no-render", "--no-") for name in ("--no-", "--no-r", "--no-render"))
    assert not any(abbreviates(name, "--no-render", "--no-") for name in ("--no", "--norm-reward", "--no-renders", "x", ""))


def test_values_follow_or_are_joined() -> None:
    assert list(values(["--env", "A", "-P", "--algo=b"])) == [("--env", "A"), ("A", "-P"), ("-P", "--algo=b"), ("--algo", "b")]


@pytest.mark.parametrize(("options", "asks"), [(["--help"], True), (["x", "-h"], True), (["--helpful"], False), ([], False)])
def test_help(options: list[str], asks: bool) -> None:
    assert asks_for_help(options) is asks

"""The arguments of the trainings."""

import argparse
from typing import Any

import pytest

from benchmarks.common.command_line import count, parse_settings, training_parser


def test_settings_are_numbers_where_they_look_like_them() -> None:
    settings = parse_settings(["a=1e-3", "b=2", "c=lin_0.1", "d=None", "e=true", "f=dict(x=1)"])
    assert settings == {"a": 0.001, "b": 2, "c": "lin_0.1", "d": "None", "e": True, "f": "dict(x=1)"}
    with pytest.raises(SystemExit, match="`--set` takes NAME=VALUE, not 'cg_damping'"):
        parse_settings(["cg_damping"])


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1e6", 1_000_000), ("2.4e6", 2_400_000)])
def test_counts_may_have_exponents(text: str, value: int) -> None:
    assert count(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "inf", "many"])
def test_other_counts_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number >= 1"):
        count(text)


@pytest.mark.parametrize(("default", "seed"), [(None, None), (0, 0)])
def test_a_seed_is_required_unless_there_is_a_default(default: int | None, seed: Any) -> None:
    parser = training_parser("", ["sb3_trpo"], seed=default)
    command = ["--env", "Hopper-v5", "--out", "runs"]
    if seed is None:
        with pytest.raises(SystemExit):
            parser.parse_args(command)
    else:
        assert parser.parse_args(command).seed == seed

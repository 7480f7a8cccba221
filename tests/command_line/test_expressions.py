"""A value on the command line that is no Python expression is named, with the right way to write it."""

import argparse
from typing import Any

import pytest
from rl_zoo3.utils import StoreDict

from sb3_trpo.command_line.expressions import explained
from sb3_trpo.command_line.main import main


def parsed(*texts: str) -> Any:
    class Explained(StoreDict):
        __call__ = explained(StoreDict.__call__)

    parser = argparse.ArgumentParser()
    parser.add_argument("-params", nargs="+", action=Explained)
    return parser.parse_args(["-params", *texts]).params


def test_expressions_are_stored_as_before() -> None:
    assert parsed("target_kl:'lin_0.03'", "n_steps:2 ** 8", "policy_kwargs:dict(a='b:c')") == {
        "target_kl": "lin_0.03",
        "n_steps": 256,
        "policy_kwargs": {"a": "b:c"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "target_kl:lin_0.03",
            "`-params target_kl:lin_0.03`: 'lin_0.03' is no Python value (SyntaxError: invalid syntax); text needs quotes "
            "within quotes: -params \"target_kl:'lin_0.03'\"",
        ),
        ("policy:MlpPolicy", "'MlpPolicy' is no Python value (NameError: name 'MlpPolicy' is not defined)"),
        ("gamma:1/0", "'1/0' is no Python value (ZeroDivisionError: division by zero)"),
        ("gamma", "`-params` needs NAME:VALUE, not 'gamma'"),
    ],
)
def test_other_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("n_steps:256", text)
    assert message in str(stop.value)


@pytest.mark.filterwarnings("ignore")  # the Zoo's libraries
def test_the_command_ends_with_the_explanation(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^sb3-trpo: `-params target_kl:lin_0.03`: 'lin_0.03' is no Python value"):
        main(["train", "--env", "CartPole-v1", "-params", "target_kl:lin_0.03"])
    assert not list(tmp_path.iterdir())

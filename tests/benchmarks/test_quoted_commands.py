"""The commands that the documents quote are commands of the scripts."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.common.paths import RESULTS, ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "Makefile"]
PAGES += [*sorted(RESULTS.rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.py"))]
COMMAND = re.compile(r"python -m (benchmarks\.\w+)([^\n`]*)")


def commands(page: Path) -> list[tuple[str, list[str]]]:
    text = re.sub(r"\\+\n", " ", page.read_text()).replace("$seed", "0").replace("$(BIN)/", "")
    return [(module, shlex.split(rest, comments=True)) for module, rest in COMMAND.findall(text)]


QUOTED = [(page, *command) for page in PAGES for command in commands(page)]


@pytest.mark.filterwarnings("ignore")  # RL Zoo's libraries warn of each other when they are imported
@pytest.mark.parametrize(("module", "arguments"), [pytest.param(*rest, id=page.name) for page, *rest in QUOTED])
def test_quoted_commands_parse(module: str, arguments: list[str]) -> None:
    script = importlib.import_module(module)
    assert callable(script.main)
    if arguments:  # without any, a sentence may just name the script
        script.parse(arguments)


def test_commands_are_found() -> None:
    assert len(QUOTED) > 60
    assert {page.name for page, *_ in QUOTED} >= {"README.md", "Makefile", "benchmark.md", "speed.md", "train.py"}

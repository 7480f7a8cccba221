"""The notebook runs from top to bottom."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def shortened(source: str) -> str:
    return source.replace("steps = 40_000", "steps = 3_072")


def test_the_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path / "run"))
    namespace: dict[str, Any] = {}
    for number, source in enumerate(cells("code")):
        exec(compile(shortened(source), f"cell {number}", "exec"), namespace)
    assert namespace["model"].num_timesteps == 3_072
    assert len(namespace["rows"]) == 2  # the last update is logged by the next rollout
    assert len(namespace["figure"].axes) == 3
    printed = capsys.readouterr().out
    assert "return " in printed
    assert "-> action" in printed


def test_a_notebook_program_runs_it(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = shortened(cell.source)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_it_explains_before_it_runs() -> None:
    kinds = [cell["cell_type"] for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= kinds.count("code")
    assert max(len(line) for text in cells("markdown") for line in text.splitlines()) <= 127

"""Runs are made once, and compared with known answers."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import defaults
from tests.benchmarks.known_runs import runs


def test_missing_runs_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def run(command: list[str], check: bool) -> None:
        folder = Path(command[-1])
        assert folder.with_name(f"{folder.name}.lock").exists()
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
        (folder / "model.zip").touch()
        made.append(folder.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["--out", str(tmp_path), "--env", "CartPole-v1", "--algo", "sb3_ppo", "sb3_trpo"]
    (tmp_path / "CartPole-v1" / "sb3_ppo" / "seed3.lock").mkdir(parents=True)
    defaults.main(arguments)
    assert made[:3] == [f"CartPole-v1/{name}/seed{i}" for i, name in ((0, "sb3_ppo"), (0, "sb3_trpo"), (1, "sb3_ppo"))]
    assert len(made) == len(set(made)) == 10 + 5 - 1
    assert not list(tmp_path.rglob("model.zip"))
    assert [lock.name for lock in tmp_path.rglob("*.lock")] == ["seed3.lock"]
    defaults.main(arguments)
    assert len(made) == 14


def test_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.common.scores.N_BOOTSTRAP", 20)

    sides = {"sb3_trpo": runs(4.0, 6.0), "sb3_contrib_trpo": runs(1.0, 3.0), "sb3_ppo": runs(9.0)}
    tied = {"sb3_trpo": runs(500.0, 500.0), "sb3_contrib_trpo": runs(500.0, 500.0)}
    defaults.print_table({"Hopper-v5": sides, "CartPole-v1": tied})
    rows = capsys.readouterr().out.splitlines()
    defaults.draw({"Hopper-v5": sides, "CartPole-v1": tied}, {}, tmp_path / "defaults.png")
    assert (tmp_path / "defaults.png").read_bytes().startswith(b"\x89PNG")
    assert rows[2] == "| Hopper-v5 | 5.0 ± 12.7 (2) | 2.0 ± 12.7 (2) | 9.0 (1) | 1.00, p = 0.336 |  |"
    assert rows[3] == "| CartPole-v1 | 500 ± 0 (2) | 500 ± 0 (2) |  | 0.50, p = 1.000 |  |"
    assert rows[-1] == "Probability of improvement over sb3-contrib TRPO, 1 environments: 1.00 [1.00, 1.00]"


def test_scores_are_scaled_from_random_play_to_the_tuned_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random_play.csv").write_text("env,mean_return\nHopper-v5,10\nReacher-v5,-40\n")
    monkeypatch.setattr(defaults, "RESULTS", tmp_path)

    drawn: list[tuple[str, float]] = []
    labels: list[str] = []

    class Axis:
        def plot(self, x: Any, y: Any, marker: str, **_: Any) -> None:
            if marker == "|" and np.ndim(x) == 0:
                drawn.append((f"{y:.1f}", round(float(x), 3)))

        def set_yticks(self, _: Any, names: list[str]) -> None:
            labels.extend(names)

        def __getattr__(self, name: str) -> Any:
            return lambda *args: None

    @contextmanager
    def picture(*_: Any, **__: Any) -> Iterator[tuple[None, Axis]]:
        yield None, Axis()

    monkeypatch.setattr(defaults, "picture", picture)
    hopper = {"sb3_trpo": runs(100.0, 120.0), "sb3_contrib_trpo": runs(60.0), "sb3_ppo": runs(10.0)}
    reacher = {"sb3_trpo": runs(-4.0), "sb3_contrib_trpo": runs(-22.0), "sb3_ppo": runs(-40.0)}
    tuned = {"Hopper-v5": {"sb3_trpo": runs(210.0)}}
    defaults.draw({"Hopper-v5": hopper, "Reacher-v5": reacher}, tuned, tmp_path / "defaults.png")
    assert labels == ["Hopper-v5", "Reacher-v5*"]
    assert drawn == [("-0.2", 0.5), ("0.0", 0.25), ("0.2", 0.0), ("0.8", 1.0), ("1.0", 0.5), ("1.2", 0.0)]

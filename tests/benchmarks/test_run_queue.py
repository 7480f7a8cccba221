"""Runs are made once, the first seeds first, and a run that fails frees its place."""

from pathlib import Path

import pytest

from benchmarks.common.run_queue import make_missing


def test_runs_are_made_once_and_the_first_seeds_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []

    def make(folder: Path, name: str, env_id: str, seed: int) -> None:
        assert folder == tmp_path / env_id / name / f"seed{seed}"
        assert folder.with_name(f"seed{seed}.lock").exists()
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
        made.append((env_id, name, seed))

    claimed_by_another = tmp_path / "Ant-v5" / "ours" / "seed1.lock"
    claimed_by_another.mkdir(parents=True)
    for _ in range(2):
        make_missing(tmp_path, ["Ant-v5", "Hopper-v5"], {"ours": [0, 1], "peer": [1]}, make)
        assert f"its lock was left behind: {claimed_by_another}" in capsys.readouterr().out
    rest = [("Ant-v5", "peer", 1), ("Hopper-v5", "ours", 1), ("Hopper-v5", "peer", 1)]
    assert made == [("Ant-v5", "ours", 0), ("Hopper-v5", "ours", 0), *rest]
    assert list(tmp_path.rglob("*.lock")) == [claimed_by_another]


def test_a_run_that_fails_frees_its_place(tmp_path: Path) -> None:
    def make(folder: Path, name: str, env_id: str, seed: int) -> None:
        raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        make_missing(tmp_path, ["Ant-v5"], {"ours": [0]}, make)
    assert not list(tmp_path.rglob("*.lock"))

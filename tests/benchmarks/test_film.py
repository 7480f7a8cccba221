"""The film of a run."""

from pathlib import Path

import pytest

from benchmarks import film


def test_a_film_is_of_the_only_model(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "Hopper-v5.zip").touch()
    for run, found in ((tmp_path, "a/Hopper-v5.zip, .*b/Hopper-v5.zip"), (tmp_path / "c", "none")):
        with pytest.raises(SystemExit, match=f"must hold one model of Hopper-v5, not: .*{found}"):
            film.main([str(run), "Hopper-v5", str(tmp_path / "film.gif")])

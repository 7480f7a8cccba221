"""A row of a curve is written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.curve_callbacks import _append


def test_an_append_that_fails_leaves_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.csv"
    path.write_bytes(b"step,mean_return\r\n")
    _append(path, [10, "1.50"])

    def full(*_: Any) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _append(path, [20, "2.50"])
    assert path.read_bytes() == b"step,mean_return\r\n10,1.50\r\n"
    assert list(tmp_path.iterdir()) == [path]

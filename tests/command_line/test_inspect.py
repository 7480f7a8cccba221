"""The command ``sb3-trpo inspect``."""

import subprocess
import sys
from pathlib import Path

import pytest

from sb3_trpo import TRPO
from sb3_trpo.command_line.main import main


@pytest.fixture(name="saved")
def saved_model(tmp_path: Path) -> str:
    path = str(tmp_path / "model.zip")
    TRPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64).save(path)
    return path


def test_it_prints_what_files_hold(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", saved, saved])
    assert capsys.readouterr().out.count(saved) == 2


def test_a_reader_that_has_enough_causes_no_traceback(saved: str) -> None:
    command = [sys.executable, "-m", "sb3_trpo", "inspect", saved]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()  # as `head` does
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")

"""A long run that is killed goes on from its checkpoint."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    fewer = [
        "n_envs=1",
        "n_steps=32",
        "batch_size=32",
        "cg_max_steps=1",
        "n_critic_updates=1",
        "target_kl=0.01",
        "ent_coef=0.01",
    ]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.atari", "--env", "BreakoutNoFrameskip-v4", "--seed", "0"]
    command += ["--games", "1", "--log-freq", "32", "--out", str(tmp_path), "--set", *fewer, "--steps"]
    process = subprocess.Popen([*command, "1000000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100.0
    curve = tmp_path / "curve.csv"
    while (not curve.exists() or len(curve.read_text().splitlines()) < 14) and time.monotonic() < deadline:
        time.sleep(0.1)  # the second checkpoint is ten updates after the first
    process.kill()
    process.communicate()
    before = curve.read_text().splitlines()
    assert not (tmp_path / "run.json").exists()

    steps = 32 * (len(before) + 5)
    output = subprocess.run([*command, str(steps)], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "going on from" in output
    rows = list(csv.DictReader(curve.read_text().splitlines()))
    numbers = [int(row["step"]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= steps - 64
    assert curve.read_text().splitlines()[:11] == before[:11]
    assert (tmp_path / "model.zip").exists()
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == steps
    seconds = [float(row["train_seconds"]) for row in rows]
    assert seconds == sorted(seconds)

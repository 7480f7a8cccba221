"""A long run that is killed goes on from its checkpoint."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.atari import parse, refuse_other_settings

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
    while (not curve.exists() or len(curve.read_text().splitlines()) < 6) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.communicate()
    before = curve.read_text().splitlines()
    assert not (tmp_path / "run.json").exists()

    steps = 32 * (len(before) + 20)
    output = subprocess.run([*command, str(steps)], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "going on from" in output
    rows = list(csv.DictReader(curve.read_text().splitlines()))
    numbers = [int(row["step"]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= steps - 64
    assert curve.read_text().splitlines()[:4] == before[:4]
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == steps
    seconds = [float(row["train_seconds"]) for row in rows]
    assert seconds == sorted(seconds)

    before = curve.read_text().splitlines()
    for other, message in ((["target_kl=0.5"], "target_kl = 0.01, not 0.5"), (["--seed", "1"], "the seed 0, not 1")):
        stopped = subprocess.run([*command, str(2 * steps), "--set", *fewer, *other], cwd=ROOT, capture_output=True, text=True)
        assert stopped.returncode == 1
        assert message in stopped.stderr
    assert curve.read_text().splitlines() == before


def test_a_run_with_a_schedule_keeps_its_length(tmp_path: Path) -> None:
    entry = {"n_timesteps": 3e6, "target_kl": "lin_0.01"}
    (tmp_path / "hyperparameters.yml").write_text(yaml.safe_dump({"PongNoFrameskip-v4": entry}))
    options = parse(["--env", "PongNoFrameskip-v4", "--seed", "0", "--steps", "4e6", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"n_timesteps = 3000000\.0, not 4000000\.0"):
        refuse_other_settings(options, entry | {"n_timesteps": float(options.steps)})

"""A row of a curve is written whole or not at all, and a model is evaluated as it was trained."""

import os
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.common.curve_callbacks import CurveCallback, _append
from sb3_trpo import MaskableTRPO
from tests.masked_envs import MaskedEnv


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


def test_a_model_that_was_trained_with_masks_is_evaluated_with_them(tmp_path: Path) -> None:
    model = MaskableTRPO("MlpPolicy", MaskedEnv(), n_steps=64, batch_size=64, seed=0, device="cpu")
    eval_env = DummyVecEnv([lambda: Monitor(MaskedEnv())])  # it raises if an action is forbidden
    curve = CurveCallback(tmp_path / "curve.csv", ["sb3_maskable_trpo", "Masked", 0], eval_env, 64, 3)
    model.learn(64, callback=curve)
    curve.evaluate(20)
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 3

"""The laboratory makes every run once, measures the KL in the same way for all, and reports known answers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import laboratory
from benchmarks.common.runs import Curve
from benchmarks.common.update_callback import UpdateCallback
from benchmarks.laboratory_report import over_bound, report, worst_fall
from sb3_trpo import TRPO

SHORT = ["--steps", "1024", "--eval-freq", "1024", "--eval-episodes", "1", "--final-episodes", "1"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_missing_runs_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--env", "CartPole-v1", "--rule", "dual", "ppo", "--seed", "3", *SHORT]
    laboratory.main(arguments)
    assert len(capsys.readouterr().out.splitlines()) == 2
    laboratory.main(arguments)
    assert not capsys.readouterr().out
    for name in ("dual", "ppo"):
        folder = tmp_path / "CartPole-v1" / name / "seed3"
        updates = rows(folder / "updates.csv")
        assert [row["step"] for row in updates] == ["1024"]
        assert all(float(row["kl"]) > 0.0 for row in updates)
        assert all(bool(row["kl_coef"]) is (name == "dual") for row in updates)
        assert len(rows(folder / "curve.csv")) == 2
        assert json.loads((folder / "run.json").read_text())["command"][:3] == ["python", "-m", "benchmarks.laboratory"]
    assert not list(tmp_path.rglob("*.lock"))


def test_the_measured_kl_is_the_algorithms_own(tmp_path: Path) -> None:
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        model = TRPO("MlpPolicy", env_id, n_steps=128, seed=0, device="cpu")
        callback = UpdateCallback(tmp_path / "updates.csv", ["trpo", env_id, 0], 0.03)
        model.learn(128, callback)
        (row,) = rows(tmp_path / "updates.csv")
        assert model.last_step is not None
        assert model.last_step.accepted
        assert float(row["kl"]) == pytest.approx(model.last_step.kl, rel=1e-3)


@pytest.mark.parametrize("name", laboratory.RULES)
def test_all_rules_share_their_settings(name: str) -> None:
    model = laboratory.make_model(name, "Pendulum-v1", 0)
    for key, value in laboratory.SHARED.items():
        assert getattr(model, key) == value
    assert model.policy.log_std.tolist() == [-1.0]
    assert isinstance(model.env, VecNormalize) is isinstance(model, PPO)
    assert isinstance(model, PPO) or getattr(model, "target_kl", None) == laboratory.TARGET_KL


def curve(*returns: float) -> Curve:
    steps = np.arange(len(returns), dtype=float)
    return Curve(steps, np.array(returns), steps, steps)


def test_the_worst_fall_is_between_two_evaluations() -> None:
    assert worst_fall(curve(1.0, 5.0, 3.0, 4.0, 0.5)) == 3.5
    assert worst_fall(curve(1.0, 2.0)) == 0.0
    assert worst_fall(curve(1.0)) == 0.0


def test_the_share_over_the_bound_counts_updates_of_all_seeds() -> None:
    assert over_bound([np.array([0.01, 0.05]), np.array([0.03, 0.04, 0.02])], 0.03) == pytest.approx(2 / 5)


def test_the_report_of_known_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.common.scores.N_BOOTSTRAP", 20)
    for name, finals in (("trpo", (10.0, 20.0)), ("npg", (5.0, 15.0))):
        for seed, final in enumerate(finals):
            folder = tmp_path / "Hopper-v5" / name / f"seed{seed}"
            folder.mkdir(parents=True)
            curve_rows = "".join(f"{name},Hopper-v5,{seed},{i},{value},0,1,1\n" for i, value in enumerate((8.0, 2.0, final)))
            head = "algorithm,env,seed,step,mean_return,std_return,train_seconds,updates\n"
            (folder / "curve.csv").write_text(head + curve_rows)
            kls = "0.02\n0.07\n" if name == "npg" else "0.02\n0.03\n"
            (folder / "updates.csv").write_text("kl\n" + kls)
    report(tmp_path, tmp_path, {"trpo": "TRPO", "npg": "NPG", "absent": "absent"})
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith("| Hopper-v5 | TRPO | 15.0 ± 63.5 (2) | 0.0% | 0.0% | 6.0 ± 0.0 (2) |")
    assert printed[3].startswith("| Hopper-v5 | NPG | 10.0 ± 63.5 (2) | 50.0% | 50.0% | 6.0 ± 0.0 (2) | 0.75 [")
    assert any(line.startswith("Probability that TRPO is better than NPG, 1 envs: 0.75 [") for line in printed)
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("laboratory.png", "laboratory_kl.png"))

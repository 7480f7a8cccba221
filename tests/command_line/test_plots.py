"""Pictures of updates: from the log of a run, and of one step of a model."""

from pathlib import Path
from typing import Any

import pytest
import torch as th
from matplotlib.figure import Figure
from stable_baselines3.common.logger import configure

from sb3_trpo import TRPO, DualTRPO, NaturalPolicyGradient
from sb3_trpo.command_line.main import main
from sb3_trpo.plots import plot_step, plot_updates
from tests.toy_envs import ConstantEnv

SMALL: dict[str, Any] = {"n_steps": 128, "seed": 0, "device": "cpu", "n_critic_updates": 1}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is written."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def recording(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", recording)
    return figures


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = TRPO("MlpPolicy", "CartPole-v1", **SMALL)
    model.set_logger(configure(str(folder), ["csv"]))
    model.learn(6 * 128)
    model.logger.close()
    return folder


def lines(figure: Figure) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for axis in figure.axes for line in axis.get_lines()}  # type: ignore[arg-type]


def test_a_run_is_drawn_from_its_log(log: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    plot_updates(log, tmp_path / "updates.png")
    assert (tmp_path / "updates.png").stat().st_size > 10_000
    (figure,) = drawn
    found = lines(figure)
    assert {"KL", "bound", "gain", "linear model", "fraction", "residual", "entropy", "explained variance"} <= found.keys()
    assert len(found["KL"]) == 5  # the last update is logged by the next rollout
    assert max(found["bound"]) == 0.01
    assert all(kl <= bound for kl, bound in zip(found["KL"], found["bound"], strict=True))
    assert max(found["KL"]) > 0.004


def test_refused_updates_are_marked_and_counted(tmp_path: Path, drawn: list[Figure]) -> None:
    model = TRPO("MlpPolicy", ConstantEnv(), **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3 * 128)
    model.logger.close()
    plot_updates(str(tmp_path / "progress.csv"), str(tmp_path / "updates.png"))
    assert "2 updates, 2 of them without a step (red)" in drawn[0].get_suptitle()
    assert "all advantages are equal but for rounding: 2" in drawn[0].get_suptitle()
    assert set(lines(drawn[0])["fraction"]) == {0.0}


def test_the_command(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plot_updates", "--folder", str(log)])
    assert capsys.readouterr().out.strip() == str(log / "updates.png")
    main(["plot_updates", "--folder", str(log), "-o", str(tmp_path / "own.svg")])
    assert (tmp_path / "own.svg").exists()


def test_without_a_log_the_error_says_how_to_write_one(tmp_path: Path) -> None:
    message = r"there is no .*progress.csv, which .* does not write: train in Python with `model.set_logger"
    with pytest.raises(SystemExit, match=message):
        main(["plot_updates", "--folder", str(tmp_path)])
    (tmp_path / "progress.csv").write_text("time/fps,train/approx_kl\n1,0.1\n")
    with pytest.raises(SystemExit, match="has no column 'train/n_updates'"):
        main(["plot_updates", "--folder", str(tmp_path)])
    (tmp_path / "progress.csv").write_text("")
    with pytest.raises(ValueError, match="has no column"):
        plot_updates(tmp_path, tmp_path / "updates.png")


def test_one_step_is_drawn_with_the_accepted_point(tmp_path: Path, drawn: list[Figure]) -> None:
    model = TRPO("MlpPolicy", "CartPole-v1", **SMALL).learn(256)
    model.save(tmp_path / "model")
    model = TRPO.load(tmp_path / "model", env="CartPole-v1")
    updates = model._n_updates
    curve = plot_step(model, tmp_path / "step.png", n_points=16)
    assert (tmp_path / "step.png").stat().st_size > 10_000
    assert model._n_updates == updates + 1
    report = model.last_step
    assert report is not None
    assert report.accepted
    assert (len(curve.kls), curve.fractions[0], curve.fractions[-1]) == (16, 0.0, 1.5)
    assert curve.kls[10] == pytest.approx(0.01, rel=0.5)
    assert list(curve.kls) == sorted(curve.kls)
    assert lines(drawn[0])["accepted"] == [report.kl]
    assert curve.expected_gain == pytest.approx(report.expected_gain)
    assert type(model).step_rule is model.step_rule  # the model has its own rule again


def test_the_picture_changes_nothing(tmp_path: Path) -> None:
    pictured = TRPO("MlpPolicy", "CartPole-v1", **SMALL).learn(256)
    plot_step(pictured, tmp_path / "step.png", n_points=3)
    plain = TRPO("MlpPolicy", "CartPole-v1", **SMALL).learn(256)
    plain.learn(6 * 128, lambda _locals, _: plain._n_updates == 2, reset_num_timesteps=False)
    assert pictured.last_step == plain.last_step
    assert all(map(th.equal, pictured.policy.parameters(), plain.policy.parameters()))


@pytest.mark.parametrize(("cls", "marked"), [(NaturalPolicyGradient, True), (DualTRPO, False)])
def test_a_rule_that_leaves_the_line_has_no_point(cls: type[TRPO], marked: bool, tmp_path: Path, drawn: list[Figure]) -> None:
    plot_step(cls("MlpPolicy", "CartPole-v1", **SMALL), tmp_path / "step.png", n_points=3)
    assert ("accepted" in lines(drawn[0])) is marked


def test_a_model_that_takes_no_step_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"took no step along the natural gradient in this rollout .*advantages are equal"):
        plot_step(TRPO("MlpPolicy", ConstantEnv(), **SMALL), tmp_path / "step.png")
    with pytest.raises(ValueError, match="`n_points` must be an integer >= 2, not 1"):
        plot_step(TRPO("MlpPolicy", ConstantEnv(), **SMALL), tmp_path / "step.png", n_points=1)
    assert not (tmp_path / "step.png").exists()

"""Pictures of learning curves are written, and tell algorithms by the labels of the table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.learning_curves import conclude, draw_comparison, draw_runs
from benchmarks.common.runs import Curve, Runs

matplotlib = pytest.importorskip("matplotlib")


def curve(*returns: float) -> Curve:
    steps = np.arange(1.0, len(returns) + 1.0)
    return Curve(steps, np.array(returns), steps, steps)


def test_a_comparison_has_a_panel_a_column_and_a_line_an_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    saved: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: saved.append(figure))
    runs: Runs = {"Ant-v5": {"sb3_trpo": [curve(1.0, 2.0), curve(3.0, 4.0)], "sb3_ppo": [curve(0.0, 1.0)]}}
    draw_comparison(tmp_path / "curves.png", runs, ["steps", "seconds"], zoo_runs={"Ant-v5": {"sb3_ppo": [curve(5.0)]}})
    (figure,) = saved
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in panels] == ["env steps", "seconds of training"]
    lines = {line.get_label(): line.get_ydata().tolist() for line in panels[0].get_lines()}
    assert lines == {"sb3-trpo": [2.0, 3.0], "SB3 PPO": [0.0, 1.0], "SB3 PPO, rl_zoo3.train": [5.0]}


def test_a_single_run_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("algorithm,env,seed,step,mean_return,std_return\nsb3_trpo,Ant-v5,0,10,1.0,0.5\n")
    draw_runs(tmp_path / "curve.png", [tmp_path / "curve.csv"])
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("at_least", "status"), [(None, 0), (900.0, 0), (900.5, 1)])
def test_the_score_decides_the_exit_status(
    at_least: float | None, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "curve.csv").write_text("algorithm,env,seed,step,mean_return,std_return\nsb3_trpo,Ant-v5,0,10,900.0,0.5\n")
    assert conclude(tmp_path, 900.0, at_least) == status
    assert f"learning curve: {tmp_path / 'curve.png'}" in (output := capsys.readouterr()).out
    assert output.err == ("the score is under 900.5\n" if status else "")

"""The tables of the report, on runs with known answers."""

import numpy as np
import pytest

from benchmarks.common.runs import Curve
from benchmarks.report import print_aggregate, print_environment, print_returns, print_within_runs
from tests.benchmarks.known_runs import runs


def test_tables_of_the_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.common.scores.N_BOOTSTRAP", 20)

    algorithms = {"sb3_trpo": runs(4.0, 4.0), "sb3_contrib_trpo": runs(2.0, 2.0), "sb3_ppo": runs(1.0, 1.0)}
    print_environment("Hopper-v5", algorithms)
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| Hopper-v5 | sb3-trpo | 4 | 4 |  |  | 7 s |"
    assert rows[1] == "| Hopper-v5 | sb3-contrib TRPO | 2 | 2 | [+2, +2] | 1.00 | 7 s |"
    assert rows[2] == "| Hopper-v5 | SB3 PPO | 1 | 1 | [+3, +3] | 1.00 | not reached |"
    print_returns({"Ant-v5": {"sb3_trpo": runs(1_002.0, 1_004.0), "sb3_ppo": runs(1_001.0, 1_003.0)}})
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| env | sb3-trpo | SB3 PPO | p |"
    assert rows[2] == "| Ant-v5 | 1,003 ± 13 (2) | 1,002 ± 13 (2) | 0.55 |"
    print_returns({"Ant-v5": {"sb3_trpo": runs(1_002.0), "sb3_ppo": runs(1_001.0, 1_003.0)}})
    assert capsys.readouterr().out.splitlines()[2] == "| Ant-v5 | 1,002 (1) | 1,002 ± 13 (2) |  |"
    print_aggregate({"Hopper-v5": algorithms, "Ant-v5": {"sb3_trpo": runs(1.0, 1.0)}})
    rows = capsys.readouterr().out.splitlines()
    assert "Against sb3-contrib TRPO, on Hopper-v5:" in rows
    ppo = rows[rows.index("Against SB3 PPO, on Hopper-v5:") :]
    assert ppo[4] == "| sb3-trpo | 2.00 | [2.00, 2.00] |"
    assert ppo[5] == "| SB3 PPO | 0.50 | [0.50, 0.50] |"
    assert ppo[6] == "| optimality gap, sb3-trpo | 0.00 | [0.00, 0.00] |"
    assert ppo[7] == "| optimality gap, SB3 PPO | 0.50 | [0.50, 0.50] |"
    assert ppo[8] == "| difference | +1.50 | [+1.50, +1.50] |"
    assert ppo[9] == "| probability of improvement | 1.00 | [1.00, 1.00] |"


def test_how_a_run_moves(capsys: pytest.CaptureFixture[str]) -> None:
    returns = np.array([*range(12), 20.0, 6.0], dtype=float)
    curve = Curve(1e5 * np.arange(1.0, 15.0), returns, returns, returns)
    print_within_runs({"Hopper-v5": {"sb3_trpo": [curve]}})
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| Hopper-v5 | sb3-trpo | 6 | 8 ± 5 | 6 | 14 | 0.70M |"

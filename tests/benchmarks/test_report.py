"""The statistics of the benchmark report, on known answers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import (
    Curve,
    bootstrap,
    difference,
    interquartile_mean,
    interquartile_mean_over,
    mean_improvement,
    print_aggregate,
    print_environment,
    probability_of_improvement,
    read_zoo_runs,
    scaled,
    seconds_to_reach,
)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])) == 3.5


def test_environments_count_equally_however_many_seeds_they_have() -> None:
    few, many = np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    weighed = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *many])
    assert interquartile_mean_over([few, many]) == interquartile_mean(weighed)
    assert interquartile_mean_over([few, many]) != interquartile_mean(np.concatenate([few, many]))


def test_probability_of_improvement_counts_ties_half() -> None:
    assert probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875
    assert mean_improvement([np.ones(3), np.ones(3), np.zeros(3), np.full(3, 2.0)]) == 0.5


def test_bootstrap_interval_holds_the_mean_and_shrinks_with_more_seeds() -> None:
    rng = np.random.default_rng(1)
    few, many = (bootstrap(lambda strata: float(strata[0].mean()), [rng.standard_normal(n)]) for n in (10, 1000))
    assert few[0] < 0.0 < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)


def test_difference_and_scale_tell_the_sides_apart() -> None:
    ours, peer = [np.array([4.0, 4.0, 4.0]), np.array([30.0, 30.0])], [np.array([1.0, 3.0]), np.array([10.0, 10.0, 10.0])]
    scores = scaled([*ours, *peer], 2)
    assert [part.tolist() for part in scores] == [[2.0, 2.0, 2.0], [3.0, 3.0], [0.5, 1.5], [1.0, 1.0, 1.0]]
    assert difference(scores) == 2.5 - 1.0
    assert difference(scores[2:] + scores[:2]) == 1.0 - 2.5


def test_bootstrap_resamples_the_seeds_of_each_stratum_and_the_scale_with_them() -> None:
    strata = [np.array([2.0, 2.0]), np.array([1.0, 3.0])]
    seen: list[tuple[float, ...]] = []

    def means(drawn: list[np.ndarray]) -> float:
        seen.append(tuple(part.mean() for part in drawn))
        return 0.0

    bootstrap(means, strata)
    assert set(seen) == {(2.0, 1.0), (2.0, 2.0), (2.0, 3.0)}
    low, high = bootstrap(lambda drawn: float(scaled(drawn, 1)[0].mean()), strata)
    assert (low, high) == (2.0 / 3.0, 2.0)


def test_tables_of_the_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report.N_BOOTSTRAP", 20)

    def runs(*scores: float) -> list[Curve]:
        return [Curve(np.array([1.0]), np.array([score]), np.array([7.0]), np.array([1.0])) for score in scores]

    algorithms = {"sb3_trpo": runs(4.0, 4.0), "sb3_contrib_trpo": runs(2.0, 2.0), "sb3_ppo": runs(1.0, 1.0)}
    print_environment("Hopper-v5", algorithms)
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| Hopper-v5 | sb3-trpo | 2 | 4 ± 0 | 4 | 4 | 7 s |  |  |"
    assert rows[1] == "| Hopper-v5 | sb3-contrib TRPO | 2 | 2 ± 0 | 2 | 2 | 7 s | [+2, +2] | 1.00 |"
    assert rows[2] == "| Hopper-v5 | SB3 PPO | 2 | 1 ± 0 | 1 | 1 | not reached | [+3, +3] | 1.00 |"
    print_aggregate({"Hopper-v5": algorithms, "Ant-v5": {"sb3_trpo": runs(1.0, 1.0)}})
    rows = capsys.readouterr().out.splitlines()
    assert "Against sb3-contrib TRPO, on Hopper-v5:" in rows
    ppo = rows[rows.index("Against SB3 PPO, on Hopper-v5:") :]
    assert ppo[4] == "| sb3-trpo | 2.00 | [2.00, 2.00] |"
    assert ppo[5] == "| SB3 PPO | 0.50 | [0.50, 0.50] |"
    assert ppo[6] == "| difference | +1.50 | [+1.50, +1.50] |"
    assert ppo[7] == "| probability of improvement | 1.00 | [1.00, 1.00] |"


def test_seconds_to_reach_reads_the_mean_curve() -> None:
    steps = np.array([1.0, 2.0, 3.0])
    runs = [
        Curve(steps, np.array(returns), seconds * steps, steps)
        for returns, seconds in (([0.0, 4.0, 8.0], 10.0), ([0.0, 0.0, 8.0], 20.0))
    ]
    assert seconds_to_reach(runs, 2.0) == 30.0
    assert seconds_to_reach(runs, 9.0) == np.inf
    shorter = Curve(steps[:2], np.array([0.0, 4.0]), 10.0 * steps[:2], steps[:2])
    assert seconds_to_reach([*runs, shorter], 2.0) == seconds_to_reach([shorter, *runs], 2.0) == 80.0 / 3.0


def test_rows_of_many_runs_are_told_apart(tmp_path: Path) -> None:
    rows = [
        "sb3_ppo,Hopper-v5,1,10,1.0",
        "sb3_ppo,Hopper-v5,1,20,2.0",
        "sb3_ppo,Hopper-v5,2,10,3.0",
        "sb3_ppo,Ant-v5,2,10,4.0",
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["algorithm,env,seed,step,mean_return", *rows]))
    runs = read_zoo_runs(path)
    assert [run.returns.tolist() for run in runs["Hopper-v5"]["sb3_ppo"]] == [[1.0, 2.0], [3.0]]
    assert runs["Ant-v5"]["sb3_ppo"][0].steps.tolist() == [10.0]

"""Reading of results, and the figures of a run."""

from pathlib import Path

import numpy as np

from benchmarks.common.runs import Curve, finals, read_runs, read_zoo_runs, seconds_to_reach, stacked


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


def test_runs_are_read_by_environment_and_algorithm(tmp_path: Path) -> None:
    for env_id, name, seed, scores in (("Ant-v5", "a", 0, (1, 2)), ("Ant-v5", "a", 1, (3,)), ("Hopper-v5", "b", 0, (4,))):
        folder = tmp_path / env_id / name / f"seed{seed}"
        folder.mkdir(parents=True)
        rows = [f"{10 * i},{score},{i}" for i, score in enumerate(scores, start=1)]
        (folder / "curve.csv").write_text("\n".join(["step,mean_return,train_seconds", *rows]))
    runs = read_runs(tmp_path)
    assert {env_id: list(found) for env_id, found in runs.items()} == {"Ant-v5": ["a"], "Hopper-v5": ["b"]}
    assert finals(runs["Ant-v5"]["a"]).tolist() == [2.0, 3.0]
    assert stacked(runs["Ant-v5"]["a"], "steps").tolist() == [[10.0], [10.0]]
    assert runs["Ant-v5"]["a"][0].updates.tolist() == [0.0, 0.0]

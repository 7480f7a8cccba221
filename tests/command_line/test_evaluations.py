"""The plots of evaluations say which runs they leave out, as the Zoo's real script does."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

from sb3_trpo.command_line.evaluations import check_results, left_out
from sb3_trpo.command_line.main import main

pytestmark = pytest.mark.filterwarnings("ignore")  # the Zoo's libraries for plots

ENV = "Pendulum-v1"


def write_run(folder: Path, number: int, steps: list[int]) -> None:
    run = folder / "logs" / "trpo" / f"{ENV}_{number}"
    run.mkdir(parents=True)
    results = np.arange(2.0 * len(steps)).reshape(-1, 2) + number
    np.savez(run / "evaluations.npz", timesteps=np.array(steps), results=results)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    pyplot.close("all")
    return tmp_path


def test_the_shorter_run_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(folder, 1, [100, 200, 300])
    write_run(folder, 2, [100, 200, 300, 400])
    write_run(folder, 3, [100])
    main(["all_plots", "--env", ENV, "--no-display"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert sorted(printed) == [
        f"Left out logs/trpo/{ENV}_1: it has 3 evaluations, and others have 4; `-min STEPS` keeps runs of that length",
        f"Left out logs/trpo/{ENV}_3: it has a single evaluation",
    ]
    main(["all_plots", "--env", ENV, "--no-display", "-min", "300"])
    assert re.findall("Left out (.*):", capsys.readouterr().out) == [f"logs/trpo/{ENV}_3"]


@pytest.mark.parametrize("seed", range(12))
def test_as_many_runs_are_left_out_as_the_script_drops(seed: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    n_runs = int(rng.integers(2, 6))
    lengths = rng.integers(1, 6, size=n_runs)
    for number, length in enumerate(lengths, 1):
        write_run(folder, number, [100 * (i + 1) for i in range(length)])
    write_run(folder, n_runs + 1, [100, 200])
    options = [[], ["-min", "200"], ["-max", "300"], ["-min", "300", "-max", "400"]][seed % 4]
    main(["all_plots", "--env", ENV, "--no-display", "-print", *options])
    printed = capsys.readouterr().out
    kept = int(re.findall(rf"{ENV}-TRPO-logs: (\d+)", printed)[0])
    assert len(re.findall("Left out", printed)) == n_runs + 1 - kept


def test_the_longest_run_within_the_limit_decides() -> None:
    runs = {Path(name): np.arange(1, n + 1) * 100 for name, n in (("two", 2), ("three", 3), ("five", 5))}
    assert left_out(runs, 300, -1).keys() == {Path("two")}
    assert left_out(runs, 1_000, -1).keys() == {Path("two"), Path("three")}
    assert left_out(runs, 1_000, 300).keys() == {Path("two")}
    assert left_out(runs, 1_000, 100) == {}
    assert left_out({}, 1_000, -1) == {}


def test_a_single_run_cannot_be_drawn_from_a_file(folder: Path) -> None:
    write_run(folder, 1, [100, 200])
    main(["all_plots", "--env", ENV, "--no-display", "-o", "results"])
    with pytest.raises(
        SystemExit, match=rf"results.pkl has a single run of TRPO-logs in {ENV}; `plot_from_file` needs two runs"
    ):
        main(["plot_from_file", "-i", "results"])
    write_run(folder, 2, [100, 200])
    main(["all_plots", "--env", ENV, "--no-display", "-o", "results"])
    main(["plot_from_file", "-i", "results", "-o", "plot.svg"])
    assert Path("plot.svg").stat().st_size > 0
    main(["all_plots", "--env", "Pendulum-v0", "--no-display", "-o", "nothing"])
    with pytest.raises(SystemExit, match=r"nothing.pkl has no runs to draw"):
        main(["plot_from_file", "-i", "nothing"])


def test_skipped_results_need_no_runs() -> None:
    two, one = {"last_evals": np.zeros(2)}, {"last_evals": np.float64(0.0)}
    results: dict[str, Any] = {"A": {"x": two, "y": one}, "B": {"x": one}, "results_table": {}}
    for options, message in (
        ([], "has no run of y in B"),
        (["--skip-envs", "B"], "a single run of y in A"),
        (["--keep-keys", "x", "--keep-envs", "B"], "a single run of x in B"),
        (["--skip-keys", "x", "y"], "has no runs"),
    ):
        with pytest.raises(SystemExit, match=message):
            check_results(results, options, "f.pkl")
    for options in (
        ["--skip-keys", "y"],
        ["--keep-keys", "x"],
        ["--keep-envs", "A", "--skip-keys", "y"],
        ["--merge", "g.pkl"],
    ):
        check_results(results, options, "f.pkl")

"""The healthy run and the sick ones: their logs show what the page about the log says."""

import numpy as np
import pytest

from benchmarks.sick_runs import FOLDER, N_STEPS, RUNS, columns, smoothed


@pytest.fixture(scope="module")
def logs() -> dict[str, dict[str, np.ndarray]]:
    return {name: columns(FOLDER / f"{name}.csv") for name in RUNS}


def test_every_run_is_complete(logs: dict[str, dict[str, np.ndarray]]) -> None:
    assert all(log["time/total_timesteps"][-1] >= N_STEPS for log in logs.values())


def test_healthy(logs: dict[str, dict[str, np.ndarray]]) -> None:
    healthy = {key: smoothed(values)[15:] for key, values in logs["healthy"].items()}
    assert healthy["kl / target"].min() > 0.65
    assert np.nanmax(logs["healthy"]["kl / target"]) <= 1.0
    assert healthy["gain / expected"].min() > 0.7
    assert healthy["train/explained_variance"].min() > 0.95
    assert healthy["train/is_line_search_success"].min() == 1.0
    assert healthy["train/std"][-1] < healthy["train/std"][0]


def test_each_sick_run_shows_its_sign_and_the_others_do_not(logs: dict[str, dict[str, np.ndarray]]) -> None:
    gain = {name: np.nanmean(log["gain / expected"]) for name, log in logs.items()}
    assert gain.pop("noise") < 0.06
    assert min(gain.values()) > 0.8
    explained = {name: log["train/explained_variance"][-10:].mean() for name, log in logs.items()}
    assert abs(explained.pop("critic")) < 0.01
    assert min(explained.values()) > 0.7
    std = {name: log["train/std"][-1] for name, log in logs.items()}
    assert std.pop("entropy") > 3.0
    assert max(std.values()) < 0.5


def test_smoothing_leaves_gaps_out() -> None:
    nan = float("nan")
    np.testing.assert_allclose(smoothed(np.array([nan, 1.0, nan, 3.0, 5.0, 5.0, 7.0, 10.0])), [nan, 1, 1, 2, 3, 3.5, 5, 6])

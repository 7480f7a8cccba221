"""The model of many ranks, and what the benchmark of scaling counts."""

import pytest

from benchmarks.scaling import alpha_beta, parse, predicted_seconds, summarize, train_shared


@pytest.mark.parametrize("ranks", [2, 8])
def test_latency_and_bandwidth_are_found(ranks: int) -> None:
    alpha, beta = 3e-5, 2e-9
    latencies = {str(size): predicted_seconds(alpha, beta, ranks, size, tree=False) for size in (1, 1_000, 100_000)}
    assert alpha_beta(latencies, ranks) == pytest.approx((alpha, beta))


def test_a_tree_has_fewer_messages_than_a_ring() -> None:
    assert predicted_seconds(1.0, 0.0, 64, 10, tree=True) == 12.0
    assert predicted_seconds(1.0, 0.0, 64, 10, tree=False) == 126.0
    assert predicted_seconds(0.0, 1.0, 4, 8, tree=False) == 12.0


def test_arms_are_compared_by_their_medians() -> None:
    shared = {
        **{"policy_sums": 30.0, "policy_milliseconds": 3.0, "critic_sums": 160.0, "critic_milliseconds": 16.0},
        "latencies": {"1": 1e-4, "1000": 1e-4, "10000": 1e-4},
    }
    speeds = {"1": [100.0, 90.0, 500.0], "2": [180.0, 190.0, 170.0]}
    runs = {arm: [{"steps_per_second": speed, **shared} for speed in values] for arm, values in speeds.items()}
    summary = summarize(runs, 2)
    assert summary["ratio"] == {"1": 1.8, "2": 1.0}
    assert summary["alpha_microseconds"] == pytest.approx(50.0)
    assert summary["critic, tree: milliseconds of an update on 64 ranks"] == pytest.approx(160 * 12 * 0.05)


def test_one_process_has_no_sums() -> None:
    result = train_shared("CartPole-v1", 2, 64, 3)
    assert result["steps_per_second"] > 0.0
    assert (result["policy_sums"], result["critic_sums"], result["latencies"]) == (0.0, 0.0, {})
    assert parse([]).ranks == 2

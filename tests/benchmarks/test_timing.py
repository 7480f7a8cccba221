"""Two sides in turns."""

from benchmarks.common.timing import Comparison, in_turns, seconds, timed


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    calls: list[str] = []
    ours, peer = iter([1.0, 2.0, 4.0]), iter([3.0, 2.0, 40.0])

    def side(name: str, times: object) -> float:
        calls.append(name)
        return next(times)  # type: ignore[call-overload,no-any-return]

    measured = in_turns(lambda: side("ours", ours), lambda: side("peer", peer), 3)
    assert measured == Comparison(ratio=3.0, ours=2.0, peer=3.0)
    assert calls == ["ours", "peer"] * 3
    assert measured.rates(6.0) == Comparison(ratio=3.0, ours=3.0, peer=2.0)


def test_a_timed_function_does_what_it_did() -> None:
    record: list[float] = []
    assert timed(divmod, record)(7, 2) == (3, 1)
    assert len(record) == 1
    assert record[0] >= 0.0
    assert seconds(lambda: None) >= 0.0

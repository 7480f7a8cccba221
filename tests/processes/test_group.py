"""Sums and decisions of a group of processes."""

import os
import time
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo.batch.advantages import effective_advantages
from sb3_trpo.processes.group import Processes, _is_alive
from sb3_trpo.processes.launch import join
from sb3_trpo.update.moments import RunningMoments
from tests.ranks import run_ranks


def joined() -> Processes:
    workers = join()
    assert isinstance(workers, Processes)
    return workers


def reduce_all(rank: int) -> dict[str, Any]:
    workers = joined()
    advantages = th.full((3,), 3.0 * rank)
    moments = RunningMoments()
    moments.update(advantages[:, None], workers=workers)
    received = th.tensor([float(rank), 7.0])
    matrix = th.arange(6.0).view(2, 3).T + rank  # not contiguous
    workers.broadcast([received, matrix])
    ask = workers.asked_to_stop()
    workers.total(0.0)
    if rank == 1:
        workers.ask_to_stop()
    workers.total(0.0)
    time.sleep(0.3)
    asked = workers.asked_to_stop()
    workers.gather(None)
    time.sleep(0.3)
    later = workers.asked_to_stop()
    return {
        "rank": workers.rank,
        "sum": workers.sum(th.tensor([1.0, 10.0 * rank], dtype=th.float32)),
        "transposed": workers.sum(th.arange(6.0).view(2, 3).T + rank),
        "exact": workers.sum(th.tensor([2.0**24 if rank == 0 else 1.0])),
        "total": workers.total(0.5 + rank),
        "largest": workers.largest(-1.0 - rank),
        "any": [workers.any(flag) for flag in (False, rank == 1, True)],
        "gathered": workers.gather({"rank": rank}),
        "received": received,
        "matrix": matrix,
        "moments": (moments.mean.item(), moments.std.item()),
        "standardised": effective_advantages(advantages, advantages, True, workers=workers),
        "asked": [ask, asked, later],
        "n_sums": workers.n_sums,
    }


def test_two_processes_reduce_what_one_would() -> None:
    results = run_ranks(2, reduce_all)
    for rank, result in enumerate(results):
        assert result["rank"] == rank
        assert result["sum"].tolist() == [2.0, 10.0]
        assert result["sum"].dtype == th.float32
        assert result["transposed"].tolist() == [[1.0, 7.0], [3.0, 9.0], [5.0, 11.0]]
        assert result["exact"].item() == 2.0**24  # 2**24 + 1 in float64, rounded once
        assert result["total"] == 2.0
        assert result["largest"] == -1.0
        assert result["any"] == [False, True, True]
        assert result["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert result["received"].tolist() == [0.0, 7.0]
        assert result["matrix"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
        # advantages 0 on rank 0 and 3 on rank 1: standardised apart, they would have no spread
        assert result["moments"] == (1.5, 1.5)
        expected = (3.0 * rank - 1.5) / np.std([0, 0, 0, 3, 3, 3], ddof=1)
        np.testing.assert_allclose(result["standardised"].numpy(), expected, rtol=1e-6)
        assert result["asked"] == [False, True, False]  # until the next exchange
    assert results[0]["n_sums"] == results[1]["n_sums"]


def leave_first(rank: int, error: BaseException) -> list[str]:
    workers, messages = joined(), []
    if rank == 1:
        workers.leave(error)
    for _ in range(2):
        try:
            workers.total(1.0)
        except (RuntimeError, KeyboardInterrupt) as failure:
            messages.append(f"{type(failure).__name__}: {failure}")
    assert workers.has_left
    return messages


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("disk full"), "RuntimeError: rank 1 has ended the run: OSError: disk full"),
        (KeyboardInterrupt(), "KeyboardInterrupt: rank 1 was interrupted"),
    ],
)
def test_a_failure_is_the_message_of_all_later_sums(error: BaseException, message: str) -> None:
    assert run_ranks(3, leave_first, error) == [[message] * 2] * 3


class Unpicklable:
    """As an environment may put into its infos."""

    def __reduce__(self) -> Any:
        raise RuntimeError("it cannot be pickled")


def gather_unpicklable(rank: int, through_connections: bool) -> str:
    workers = joined()
    if through_connections:
        workers.through_connections()
    try:
        workers.gather(Unpicklable() if rank == 1 else None)
    except RuntimeError as error:
        workers.leave(error)
        return str(error)
    return "no error"


@pytest.mark.parametrize("through_connections", [False, True])
def test_an_error_while_pickling_is_that_of_its_process(through_connections: bool) -> None:
    message = "rank 1 has ended the run: RuntimeError: it cannot be pickled"
    assert run_ranks(2, gather_unpicklable, through_connections) == [message, "it cannot be pickled"]


def look_after_the_end(rank: int) -> tuple[bool, bool]:
    workers = joined()
    if rank == 1:
        workers.leave(OSError("disk full"))
        return True, True
    time.sleep(0.5)
    workers._look(lambda: False)  # the process that has ended had taken its turn before
    goes_on = not workers.has_left
    with pytest.raises(RuntimeError, match="disk full"):
        workers._look(lambda: True)
    return goes_on, workers.has_left


def test_a_process_that_has_done_its_part_may_end() -> None:
    assert run_ranks(2, look_after_the_end) == [(True, True)] * 2


def test_a_process_that_has_ended_is_not_alive() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + 10.0
    while _is_alive(child) and time.monotonic() < deadline:  # it waits to be collected
        time.sleep(0.01)
    assert not _is_alive(child)
    os.waitpid(child, 0)
    assert not _is_alive(child)
    assert _is_alive(os.getpid())

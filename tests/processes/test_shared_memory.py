"""Sums through memory that the processes of one machine share."""

import mmap
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo.processes import shared_memory
from sb3_trpo.processes.group import Processes
from sb3_trpo.processes.launch import join
from sb3_trpo.processes.shared_memory import _CAPACITY, _LINE, SharedMemory
from tests.ranks import run_ranks


def of_every_rank(rank: int) -> dict[str, Any]:
    workers = join()
    assert isinstance(workers, Processes)
    in_memory = workers.has_shared_memory
    rng = np.random.default_rng(rank)
    vectors = [rng.normal(size=n) for n in (0, 1, 5, _CAPACITY, 2 * _CAPACITY + 3)]
    sums = [workers.sum(th.from_numpy(vector)).numpy() for vector in 2 * vectors]
    largest = [workers.largest(float(rank)) for _ in range(200)]
    objects = [None, "x" * rank, {"rank": rank}, th.full((rank,), float("nan")), bytes(rank * 3 * 8 * _CAPACITY)]
    gathered, sent = [], []
    for _ in range(2):
        gathered.append([workers.gather(item) for item in objects])
        tensors = [th.full((2,), rank, dtype=th.uint8), th.full((_CAPACITY,), float(rank)), th.full((3,), rank)]
        workers.broadcast(tensors)
        sent.append([(tensor.dtype, sorted(set(tensor.tolist()))) for tensor in tensors])
        workers.through_connections()
    return {
        "vectors": vectors,
        "sums": sums,
        "largest": largest,
        "objects": objects,
        "gathered": gathered,
        "sent": sent,
        "before": in_memory,
        "after": workers.has_shared_memory,
    }


def test_sums_are_exact_and_equal_on_all_ranks() -> None:
    results = run_ranks(3, of_every_rank)
    if not results[0]["before"]:
        pytest.skip("this system has no memory to share")
    for i, total in enumerate(results[0]["sums"]):
        expected = np.sum([result["vectors"][i % 5] for result in results], axis=0)
        np.testing.assert_allclose(total, expected, rtol=1e-14, atol=1e-14)
        assert all(np.array_equal(result["sums"][i], total) for result in results)
    assert all(result["largest"] == [2.0] * 200 for result in results)
    assert not any(result["after"] for result in results)


@pytest.mark.parametrize("way", ["shared memory", "connections"])
def test_objects_of_different_lengths_arrive_whole(way: str) -> None:
    results = run_ranks(3, of_every_rank)
    if way == "shared memory" and not results[0]["before"]:
        pytest.skip("this system has no memory to share")
    i_way = ["shared memory", "connections"].index(way)
    for result in results:
        for i, found in enumerate(result["gathered"][i_way]):
            expected = [other["objects"][i] for other in results]
            if i == 3:
                assert [(tensor.shape, tensor.isnan().all().item()) for tensor in found] == [((r,), True) for r in range(3)]
            else:
                assert found == expected
        assert result["sent"][i_way] == [(th.uint8, [0]), (th.float32, [0.0]), (th.int64, [0])]


def test_one_that_waits_looks_at_the_others() -> None:
    memory = mmap.mmap(-1, 8 * 2 * (_LINE + 2 * _CAPACITY))
    values, looks = np.ones(3), []

    def look(is_waiting: Callable[[], bool]) -> None:
        looks.append(1)
        raise RuntimeError("rank 1 has ended")

    with pytest.raises(RuntimeError, match="rank 1 has ended"):
        SharedMemory(memory, 0, 2).combine(values, np.add, look)
    assert looks == [1]


def test_nobody_writes_where_another_still_reads() -> None:
    memory = mmap.mmap(-1, 8 * 2 * (_LINE + 2 * _CAPACITY))
    results: dict[int, list[float]] = {}

    def run(rank: int) -> None:
        shared, results[rank] = SharedMemory(memory, rank, 2), []
        for turn in range(300):
            value = np.array([float(turn * (rank + 1))])
            shared.combine(value, np.add, lambda is_waiting: None)
            results[rank].append(value.item())

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1] == [3.0 * turn for turn in range(300)]


@pytest.mark.parametrize("missing", ["folder", "processor"])
def test_without_such_memory_there_is_none(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "folder":
        monkeypatch.setattr(shared_memory, "_FOLDER", Path("/none"))
    else:
        monkeypatch.setattr(shared_memory, "_ORDERED", ())
    assert SharedMemory.join(0, 1, lambda value: [value]) is None


def test_the_memory_has_no_name_once_all_have_it() -> None:
    before = set(Path("/dev/shm").glob("sb3_trpo_*")) if Path("/dev/shm").is_dir() else set()
    made = SharedMemory.join(0, 1, lambda value: [value])
    if made is None:
        pytest.skip("this system has no memory to share")
    assert set(Path("/dev/shm").glob("sb3_trpo_*")) == before


def memory_for_a_large_object(rank: int) -> float:
    workers, size = join(), 8_000_000
    value = bytes(size) if rank == 0 else None
    tracemalloc.start()
    received = workers.gather(value)[0]
    peak = tracemalloc.get_traced_memory()[1] / size
    tracemalloc.stop()
    assert len(received) == size
    return peak


def memory_for_views(rank: int) -> float:
    workers, whole = join(), th.full((1000, 1000), float(rank))
    tracemalloc.start()
    workers.broadcast(whole.unbind())
    peak = tracemalloc.get_traced_memory()[1] / (4 * whole.numel())
    assert not whole.any()
    return peak


def test_parts_of_a_tensor_are_sent_without_the_others() -> None:
    assert max(run_ranks(2, memory_for_views)) < 5.0


def test_a_large_object_of_one_process_takes_no_room_for_those_of_others() -> None:
    results = run_ranks(4, memory_for_a_large_object)
    assert max(results[1:]) < 2.5  # what has arrived, and the object that is made of it

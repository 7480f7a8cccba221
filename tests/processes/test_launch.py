"""Joining the processes of torchrun."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch as th
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

import sb3_trpo
from sb3_trpo import TRPO
from sb3_trpo.processes import launch
from sb3_trpo.processes.group import Processes
from sb3_trpo.processes.launch import is_launched, join, launched_rank, own_device, part_of_this_start
from sb3_trpo.step.workers import ALONE
from tests.ranks import run_ranks


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_launched(), launched_rank(), join()) == (False, 0, ALONE)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")  # a cluster may set it, but torchrun sets RANK too
    assert (is_launched(), launched_rank(), join()) == (False, 0, ALONE)
    assert not dist.is_initialized()
    assert own_device("auto") == "auto"


def test_distributed_changes_nothing_in_one_process() -> None:
    weights = []
    for distributed in (False, True):
        model = TRPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, seed=0, distributed=distributed).learn(128)
        weights.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*weights)


def count_threads(rank: int, chosen: str | None, by_program: bool) -> tuple[int, bool]:
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.pop("MKL_NUM_THREADS", None)
    from sb3_trpo.processes import launch

    launch._THREADS_AT_IMPORT = 4
    th.set_num_threads(3 if by_program else 4)
    if chosen is not None:
        os.environ["OMP_NUM_THREADS"] = chosen
    first = join()
    return th.get_num_threads(), join() is first


@pytest.mark.parametrize(("chosen", "by_program", "expected"), [(None, False, 1), ("2", False, 4), (None, True, 3)])
def test_one_thread_unless_the_user_has_chosen(chosen: str | None, by_program: bool, expected: int) -> None:
    assert run_ranks(2, count_threads, chosen, by_program) == [(expected, True)] * 2


def use_own_group(rank: int) -> tuple[float, float]:
    dist.init_process_group("gloo")
    workers = join()
    assert isinstance(workers, Processes)
    total, own = workers.total(1.0), th.ones(1)
    workers.leave(OSError("disk full"))
    dist.all_reduce(own)
    dist.destroy_process_group()
    return total, own.item()


def test_a_group_that_the_program_has_set_up_is_used_and_kept() -> None:
    assert run_ranks(2, use_own_group) == [(2.0, 2.0)] * 2


def destroy_all_groups(rank: int) -> float:
    workers = join()
    dist.destroy_process_group()
    total = workers.total(1.0) if isinstance(workers, Processes) and workers.has_shared_memory else 2.0
    launch._close()
    return total


def test_the_program_may_destroy_the_group_itself() -> None:
    assert run_ranks(2, destroy_all_groups) == [2.0] * 2


def join_after_a_failure(rank: int) -> list[str]:
    messages = []
    for _ in range(2):
        try:
            workers = join()
            assert isinstance(workers, Processes)
            if rank == 1:
                workers.leave(OSError("disk full"))
            workers.total(1.0)
        except RuntimeError as failure:
            messages.append(str(failure))
    return messages


def test_nobody_waits_for_processes_that_have_ended() -> None:
    assert run_ranks(2, join_after_a_failure) == [["rank 1 has ended the run: OSError: disk full"] * 2] * 2


def end_early(rank: int, error: BaseException | None) -> str:
    workers = join()
    if rank == 1:
        if error is not None:
            sys.last_value = error  # as Python sets it when it prints the traceback
        launch._close()
        return ""
    try:
        workers.total(1.0)
    except RuntimeError as failure:
        return str(failure)
    return "no error"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("disk full"), "rank 1 has ended the run: OSError: disk full"),
        (OSError("no \udcff"), "rank 1 has ended the run: OSError: no \\udcff"),
        (None, "the program of rank 1 is over: every rank must construct the model and call `learn`"),
    ],
)
def test_a_process_that_ends_outside_of_learn_says_why(error: BaseException | None, message: str) -> None:
    assert run_ranks(2, end_early, error) == [message, ""]


def fork_after_joining(rank: int) -> tuple[bool, float]:
    workers = join()
    child = os.fork()
    if child == 0:
        launch._close()  # as at the end of the child
        os._exit(0)
    ended, deadline = 0, time.monotonic() + 10.0
    while not ended and time.monotonic() < deadline:
        ended, _ = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, signal.SIGKILL)
    return bool(ended), workers.total(1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_connections_alone() -> None:
    assert run_ranks(2, fork_after_joining) == [(True, 2.0)] * 2


def test_each_start_has_a_part_of_the_store_of_its_own() -> None:
    store, size = HashStore(), 3
    seen: list[tuple[bool, bytes]] = []
    for start in range(2):
        parts: dict[int, Any] = {}

        def begin(rank: int, parts: dict[int, Any] = parts) -> None:
            parts[rank] = part_of_this_start(store, rank, size)

        threads = [threading.Thread(target=begin, args=(rank,), daemon=True) for rank in range(size)]
        for thread in threads[:: 1 - 2 * start]:  # also those of other ranks first
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(10.0)
        seen.append((parts[1].check(["failure"]), b""))
        parts[0].set("failure", f"of start {start}")
        seen += [(parts[rank].check(["failure"]), parts[rank].get("failure")) for rank in range(size)]
    expected = [[(False, b""), *[(True, f"of start {start}".encode())] * size] for start in range(2)]
    assert seen == [*expected[0], *expected[1]]


def use_gpus(rank: int) -> tuple[list[float], str]:
    device = str(own_device("auto"))
    workers = join()
    return workers.sum(th.full((3,), 1.0 + rank, device=device)).tolist(), device


@pytest.mark.skipif(th.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_process_has_its_own_gpu() -> None:
    assert run_ranks(2, use_gpus) == [([3.0] * 3, "cuda:0"), ([3.0] * 3, "cuda:1")]


PROGRAM = """
import torch as th
from sb3_trpo.processes.launch import join
workers = join()
print("RANK", workers.rank, workers.gather(workers.rank), workers.total(1.0), flush=True)
"""


def test_two_launches_meet_as_two_machines_do(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-id", "test", "--rdzv-endpoint", endpoint, str(program)]
    root = str(Path(sb3_trpo.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    launches = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    try:
        printed = [launch.communicate(timeout=90)[0] for launch in launches]
    finally:
        for launch in launches:
            launch.kill()
    assert [launch.returncode for launch in launches] == [0, 0]
    lines = sorted(line for output in printed for line in output.splitlines() if line.startswith("RANK"))
    assert lines == [f"RANK {rank} [0, 1] 2.0" for rank in range(2)]


def threads_after_the_end(rank: int) -> list[str]:
    for name in [name for name in sys.modules if name.startswith("torch.distributed.nn")]:
        del sys.modules[name]  # a program that has not imported it yet
    TRPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu", distributed=True).learn(32)
    import_module("torch.distributed.nn.functional")  # as torch does now and then
    launch._close()
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_no_thread_of_the_group_is_left() -> None:
    # one that is left may abort the process when it ends
    for threads in run_ranks(2, threads_after_the_end):
        assert not [name for name in threads if "gloo" in name]

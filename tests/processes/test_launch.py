"""Joining the processes of torchrun."""

import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch as th
import torch.distributed as dist

import sb3_trpo
from sb3_trpo import TRPO
from sb3_trpo.processes import launch
from sb3_trpo.processes.group import Processes
from sb3_trpo.processes.launch import is_launched, join, launched_rank, own_device
from sb3_trpo.step.workers import ALONE
from tests.ranks import run_ranks


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_launched(), launched_rank(), join()) == (False, 0, ALONE)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join() is ALONE
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


def use_own_group(rank: int) -> tuple[float, bool]:
    dist.init_process_group("gloo")
    workers = join()
    assert isinstance(workers, Processes)
    return workers.total(1.0), dist.is_initialized()


def test_a_group_that_the_program_has_set_up_is_used() -> None:
    assert run_ranks(2, use_own_group) == [(2.0, True)] * 2


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

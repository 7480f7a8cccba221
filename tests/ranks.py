"""Runs functions in several processes that share a process group over gloo, as ``torchrun`` would start them."""

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch as th

_CONTEXT = get_context("forkserver")  # a clean process that has imported everything once
_CONTEXT.set_forkserver_preload(
    ["tests.ranks", "sb3_trpo", "torch._dynamo", "gymnasium.envs.mujoco.half_cheetah_v5", "pytest"]
)
_SECONDS = 60.0


class EndedError(Exception):
    """A process ended without a result, with this exit code."""


def run_ranks(size: int, job: Callable[..., Any], *arguments: Any) -> list[Any]:
    """
    Call ``job(rank, *arguments)`` in every process.

    :param size: number of processes
    :param job: a function of a module
    :param arguments: its further arguments
    :return: the result of each process, or the exception that it raised
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, pipes = [], []
    for rank in range(size):
        here, there = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run, args=(there, rank, size, port, job, arguments), daemon=False)
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    results: list[Any] = [None] * size
    open_pipes: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(pipes)}
    try:
        while open_pipes:
            ready = wait(list(open_pipes), timeout=_SECONDS)
            assert ready, f"ranks {sorted(open_pipes.values())} have not ended"
            for pipe in ready:
                rank = open_pipes.pop(pipe)
                try:
                    results[rank] = pickle.loads(pipe.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    processes[rank].join(_SECONDS)
                    results[rank] = EndedError(processes[rank].exitcode)
    finally:
        for process in processes:
            process.join(0.0 if open_pipes else _SECONDS)
            if process.is_alive():
                process.kill()
    return results


def _run(pipe: Connection, rank: int, size: int, port: int, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    th.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        result = job(rank, *arguments)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        result = error
    pipe.send_bytes(pickle.dumps(result))  # `send` would share the memory of tensors
    pipe.close()

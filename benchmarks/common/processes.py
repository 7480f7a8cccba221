"""Measure in a separate process, and read the memory of a process."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch as th

Result = TypeVar("Result")


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """
    Call a function in a new process, which inherits no memory, on one thread.

    :param function: a function of a module
    :param arguments: its arguments; they must pickle
    :return: its result
    """
    with ProcessPoolExecutor(1, get_context("spawn"), th.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def memory(key: str) -> int:
    """
    Read the memory of this process from Linux's own account.

    :param key: VmRSS for now, VmHWM for the peak
    :return: bytes
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) * 1024

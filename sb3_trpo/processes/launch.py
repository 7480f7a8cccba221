"""Joins the processes that ``torchrun`` has started."""

import atexit
import os
import re
from datetime import timedelta
from importlib import import_module

import torch as th
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from sb3_trpo.processes.group import Processes
from sb3_trpo.step.workers import ALONE, Workers

_TIMEOUT = timedelta(hours=24)
"""Longest wait for another process, which may be evaluating; the end of a process ends it at once."""
_THREADS_AT_IMPORT = th.get_num_threads()
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_joined: Processes | None = None
_pid = 0
"""Number of the process that has joined; its children have it too, but not its threads."""


def is_launched() -> bool:
    """
    Tell whether this process is one of several that ``torchrun`` has started.

    :return: whether it is
    """
    if not dist.is_available():
        return False
    # some clusters set the one for programs that they start themselves
    return dist.is_initialized() or ("RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1)


def launched_rank() -> int:
    """
    Read the number of this process, before it joins the others.

    :return: the number, from 0
    """
    if not is_launched():
        return 0
    return dist.get_rank() if dist.is_initialized() else int(os.environ["RANK"])


def join() -> Workers:
    """
    Join the other processes, once; without ``torchrun``, there are none.

    A process group that the program has set up is used as it is. Otherwise tensors on the CPU go through gloo, and those on
    GPUs through nccl if every process of the machine has a GPU of its own. A process that shares the machine gets one thread,
    unless the environment or the program has chosen a number.

    :return: the workers
    :raises RuntimeError: if one of them has failed since they have joined, with its message; KeyboardInterrupt likewise
    """
    global _joined, _pid
    if _joined is not None:
        _joined.raise_if_left()  # they could not meet again: the others may have ended
        return _joined
    if not is_launched():
        return ALONE
    is_own = not dist.is_initialized()
    if is_own:
        _limit_threads()
        # it takes the group that exists when it is imported as a default of functions, and would keep that until after the end
        import_module("torch.distributed.nn")
        backend = "cpu:gloo,cuda:nccl" if _has_own_gpu() else "gloo"
        dist.init_process_group(backend, timeout=_TIMEOUT)
        atexit.register(_close)  # the threads of a group that still exists may abort the process when it ends
    if dist.get_world_size() == 1:
        return ALONE
    group = dist.group.WORLD
    assert group is not None
    backends = str(dist.get_backend_config(group))
    on_device = "nccl" in backends and "gloo" in backends
    if not is_own:  # the program's group stays as it is if a process fails
        group = dist.new_group(backend=backends if on_device else "gloo", timeout=_TIMEOUT)
    _joined, _pid = Processes(group, _get_default_store(), on_device), os.getpid()
    return _joined


def _close() -> None:
    """Close the connections to the other processes."""
    global _joined
    if _pid not in (0, os.getpid()):  # a child that this process has forked
        return
    if _joined is not None:
        _joined.close()
        _joined = None
    elif dist.is_initialized():
        dist.destroy_process_group()


def own_device(device: th.device | str) -> th.device | str:
    """
    Choose the GPU of this process.

    :param device: the user's choice
    :return: that; for "auto" or "cuda" without a number, the GPU with the process's number on its machine, if it has several
    """
    text = str(device)
    automatic = text == "cuda" or (text == "auto" and th.cuda.is_available())
    if not (automatic and is_launched() and th.cuda.device_count() > 1):
        return device
    return f"cuda:{_local_rank() % th.cuda.device_count()}"


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _local_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))


def _has_own_gpu() -> bool:
    return th.cuda.is_available() and dist.is_nccl_available() and th.cuda.device_count() >= _local_size()


def _limit_threads() -> None:
    chosen = any(re.fullmatch(r"[\d,]+", os.environ.get(name, "")) for name in _THREAD_VARIABLES)
    if _local_size() > 1 and not chosen and th.get_num_threads() == _THREADS_AT_IMPORT:
        th.set_num_threads(1)

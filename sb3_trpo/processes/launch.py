"""Joins the processes that ``torchrun`` has started."""

import atexit
import os
import re
import time
from datetime import timedelta
from importlib import import_module
from uuid import uuid4

import torch as th
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import rendezvous

from sb3_trpo.processes.group import Processes
from sb3_trpo.step.workers import ALONE, Workers

_TIMEOUT = timedelta(hours=24)
"""Longest wait for another process, which may be evaluating; the end of a process ends it at once."""
_THREADS_AT_IMPORT = th.get_num_threads()
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_STARTS, _PAUSE = "sb3_trpo/starts", 0.01
"""Keys of the names of processes and starts, and seconds between two looks for them."""

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
        _init_group("cpu:gloo,cuda:nccl" if _has_own_gpu() else "gloo")
        atexit.register(_close)  # the threads of a group that still exists may abort the process when it ends
    if dist.get_world_size() == 1:
        return ALONE
    group = dist.group.WORLD
    assert group is not None
    backends = str(dist.get_backend_config(group))
    on_device = "nccl" in backends and "gloo" in backends
    store = _get_default_store()
    if not is_own:  # the program's group stays as it is if a process fails
        group = dist.new_group(backend=backends if on_device else "gloo", timeout=_TIMEOUT)
        store = part_of_this_start(store, dist.get_rank(), dist.get_world_size())
    _joined, _pid = Processes(group, store, on_device), os.getpid()
    return _joined


def _init_group(backend: str) -> None:
    """Set up the process group as ``torch.distributed`` does, on a part of the store that is empty."""
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    store.set_timeout(_TIMEOUT)
    dist.init_process_group(backend, store=part_of_this_start(store, rank, size), rank=rank, world_size=size, timeout=_TIMEOUT)


def part_of_this_start(store: Store, rank: int, size: int) -> Store:
    """
    Agree on a part of the store to which nobody has written: ``torchrun --max-restarts`` keeps the store of earlier starts.

    Each process shows a name that is new, and the first one answers it with the name of this start. It may answer processes of
    an earlier start too, which have ended.

    :param store: the store
    :param rank: number of this process
    :param size: number of processes
    :return: the part
    """
    own = uuid4().hex
    if rank == 0:
        answered = [""] * size
        while store.add(f"{_STARTS}/{own}/seen", 0) < size - 1:
            for other in range(1, size):
                name = store.get(f"{_STARTS}/{other}").decode() if store.check([f"{_STARTS}/{other}"]) else ""
                if name != answered[other]:
                    store.set(f"{_STARTS}/{name}", own)
                    answered[other] = name
            time.sleep(_PAUSE)
        return PrefixStore(own, store)
    store.set(f"{_STARTS}/{rank}", own)
    while not store.check([f"{_STARTS}/{own}"]):  # `get` would wait too, but Ctrl-C could not end it
        time.sleep(_PAUSE)
    start = store.get(f"{_STARTS}/{own}").decode()
    store.add(f"{_STARTS}/{start}/seen", 1)
    return PrefixStore(start, store)


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

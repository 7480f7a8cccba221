"""The workers as processes of ``torch.distributed``."""

import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch as th
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from sb3_trpo.processes.shared_memory import SharedMemory

_PATIENCE = 0.25
"""Seconds between two looks at the other processes within a rollout."""
_MESSAGE_PATIENCE = 2.0
"""Seconds to wait for the message of a process that has closed its connections."""
_FAILURE, _READERS = "sb3_trpo/failure", "sb3_trpo/readers"
"""Keys of the message of a process that has failed, and of the number of processes that have read it."""


class Processes:
    """
    The processes of a group of ``torch.distributed``.

    Sums are in float64, and equal on all of them bit for bit. Everything goes through shared memory on one machine, otherwise
    through the group's connections.

    If one of them fails, its message reaches the others through the group's store: they raise it in their next sum, which the
    closed connection ends at once, or at their next env step.

    :param group: a process group that has gloo for tensors on the CPU
    :param store: its key-value store
    :param on_device: whether the group also has a backend for tensors on the GPU
    """

    def __init__(self, group: dist.ProcessGroup, store: Store, on_device: bool = False) -> None:
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.seconds = 0.0
        """Seconds in sums so far, waiting included."""
        self.n_sums = 0
        """Number of sums so far."""
        self._group = group
        self._store = store
        self._on_device = on_device
        self._n_gathered = 0
        self._next_look = 0.0
        self._failure: RuntimeError | KeyboardInterrupt | None = None
        self._pids: list[tuple[int, int]] = []
        self._memory: SharedMemory | None = None
        places = self.gather((_place(), os.getpid()))
        near = [(rank, pid) for rank, (place, pid) in enumerate(places) if place is not None and place == _place()]
        self._pids = [(rank, pid) for rank, pid in near if _is_alive(pid)]
        self._memory = SharedMemory.join(self.rank, self.size, self.gather) if len(near) == self.size else None

    @property
    def has_left(self) -> bool:
        """Tell whether this process or another one has failed, so that there are no more sums."""
        return self._failure is not None

    def raise_if_left(self) -> None:
        """
        Refuse to go on after a failure.

        :raises RuntimeError: the message of the process that has failed first
        :raises KeyboardInterrupt: if it was interrupted
        """
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    def sum(self, values: th.Tensor) -> th.Tensor:
        """See :meth:`~sb3_trpo.step.workers.Workers.sum`."""
        total = values.detach().to(device=None if self._on_device else "cpu", dtype=th.float64, copy=True).contiguous()
        self._reduce(total, np.add)
        return total.to(values.device, values.dtype)

    def total(self, number: float) -> float:
        """See :meth:`~sb3_trpo.step.workers.Workers.total`."""
        return self.sum(th.tensor(number, dtype=th.float64)).item()

    def largest(self, number: float) -> float:
        """See :meth:`~sb3_trpo.step.workers.Workers.largest`."""
        largest = th.tensor(number, dtype=th.float64)
        self._reduce(largest, np.maximum)
        return largest.item()

    @property
    def has_shared_memory(self) -> bool:
        """Tell whether everything goes through memory that the processes share."""
        return self._memory is not None

    def through_connections(self) -> None:
        """Let everything go through the connections from now on, as between machines; all must call this together."""
        self._memory = None

    def _reduce(self, values: th.Tensor, function: np.ufunc) -> None:
        """Combine the values of all processes in place."""
        memory = self._memory
        if memory is None or values.device.type != "cpu":
            operation = dist.ReduceOp.SUM if function is np.add else dist.ReduceOp.MAX
            self._call(lambda: dist.all_reduce(values, operation, group=self._group))
        else:
            self._call(lambda: memory.combine(values.view(-1).numpy(), function, self._look))

    def _look(self, is_waiting: Callable[[], bool] = lambda: True) -> None:
        """Raise the error of a process that has ended, unless it has done its part of the sum for which this one waits."""
        failure = self._find_failure()
        if failure is not None and is_waiting():
            self._fail(failure)

    def any(self, flag: bool) -> bool:
        """See :meth:`~sb3_trpo.step.workers.Workers.any`."""
        return self.largest(float(flag)) > 0.0

    def gather(self, value: Any) -> list[Any]:
        """See :meth:`~sb3_trpo.step.workers.Workers.gather`."""
        values = self._collect(value)
        self._n_gathered += 1
        return values

    def _collect(self, value: Any) -> list[Any]:
        own = pickle.dumps(value)  # outside of the collective, because an error is this process's own
        parts: list[Any] = [b""] * self.size
        memory = self._memory

        def collect() -> None:
            if memory is None:
                dist.all_gather_object(parts, own, group=self._group)
            else:
                parts[:] = memory.gather(own, self._look)

        self._call(collect)
        return [pickle.loads(part) for part in parts]

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """See :meth:`~sb3_trpo.step.workers.Workers.broadcast`."""
        if self._memory is not None:
            # copies, because a view would be pickled with everything that it is a part of
            own = [tensor.detach().to("cpu", copy=True) for tensor in tensors] if self.rank == 0 else None
            sent = self._collect(own)[0]
            with th.no_grad():
                th._foreach_copy_(list(tensors), sent)
            return
        first = dist.get_global_rank(self._group, 0)
        for tensor in tensors:
            sent = tensor.detach().to(tensor.device if self._on_device else "cpu").contiguous()
            self._call(partial(dist.broadcast, sent, first, group=self._group))
            with th.no_grad():
                tensor.copy_(sent)

    def ask_to_stop(self) -> None:
        """See :meth:`~sb3_trpo.step.workers.Workers.ask_to_stop`."""
        self._store.set(self._stop_key(), "")

    def asked_to_stop(self) -> bool:
        """See :meth:`~sb3_trpo.step.workers.Workers.asked_to_stop`."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _PATIENCE
        self._look()
        try:
            return bool(self._store.check([self._stop_key()]))
        except RuntimeError as error:
            self._fail(RuntimeError(_without_store(error)), error)

    def _stop_key(self) -> str:
        return f"sb3_trpo/stop/{self._n_gathered}"

    def leave(self, error: BaseException) -> None:
        """
        Tell the other processes why this one ends, and close the connections to them.

        :param error: the reason
        """
        if self._failure is not None:
            return
        if isinstance(error, KeyboardInterrupt):
            kind, message = "interrupt", f"rank {self.rank} was interrupted"
        else:
            kind, message = "error", f"rank {self.rank} has ended the run: {type(error).__name__}: {error}"
        self._failure = KeyboardInterrupt(message) if kind == "interrupt" else RuntimeError(message)
        try:
            self._tell(kind, message)
            self._disconnect()
            self._wait_for_readers()
        except RuntimeError:  # the process that keeps the store has ended, which tells the others enough
            return

    def _tell(self, kind: str, message: str) -> None:
        """Leave a message to the others, unless another process has left one before."""
        self._store.compare_set(_FAILURE, "", f"{kind} {message}".encode(errors="backslashreplace").decode())

    def _disconnect(self) -> None:
        with suppress(ValueError, AssertionError):  # the program may have destroyed all groups itself
            dist.destroy_process_group(self._group)

    def close(self) -> None:
        """
        Close the connections at the end of the program, and let go of everything that has threads.

        Others that still wait for this process learn why: it has raised an error outside of ``learn``, or has come to its end.
        """
        error: BaseException | None = getattr(sys, "last_value", None)  # that of the traceback that Python has printed
        if self._failure is None and error is not None:
            self.leave(error)
        elif self._failure is None:
            self._failure = RuntimeError("the connections to the other processes are closed")
            with suppress(RuntimeError):  # the process that keeps the store may have ended before
                message = f"the program of rank {self.rank} is over: every rank must construct the model and call `learn`"
                self._tell("error", message)
            self._disconnect()
        del self._group, self._store

    def _wait_for_readers(self) -> None:
        """Let the first process, which may keep the store, wait until all have read the message."""
        deadline = time.monotonic() + (_MESSAGE_PATIENCE if self.rank == 0 else 0.0)
        while time.monotonic() < deadline and self._store.add(_READERS, 0) < self.size - 1:
            time.sleep(0.05)

    def _call(self, collective: Callable[[], Any]) -> None:
        """Run a collective; its error becomes the message of the process that has failed."""
        self.raise_if_left()
        started = time.perf_counter()
        try:
            collective()
        except RuntimeError as error:
            if self._failure is not None:
                raise
            deadline = time.monotonic() + _MESSAGE_PATIENCE
            while time.monotonic() < deadline:
                failure = self._find_failure()
                if failure is not None:
                    self._fail(failure, error)
                time.sleep(0.05)
            self._fail(
                RuntimeError(f"another process has ended without a message, so it was probably killed ({error})"), error
            )
        self.seconds += time.perf_counter() - started
        self.n_sums += 1

    def _find_failure(self) -> RuntimeError | KeyboardInterrupt | None:
        """Return the message of a process that has failed, or tell which one of this machine was killed."""
        dead = [rank for rank, pid in self._pids if not _is_alive(pid)]
        reason = f"rank {dead[0]} has ended without a message, so it was probably killed" if dead else None
        try:
            if self._store.check([_FAILURE]):  # a dead process has left its message before it ended
                kind, _, reason = self._store.get(_FAILURE).decode().partition(" ")
                return KeyboardInterrupt(reason) if kind == "interrupt" else RuntimeError(reason)
        except RuntimeError as error:
            reason = reason or _without_store(error)
        return None if reason is None else RuntimeError(reason)

    def _fail(self, failure: RuntimeError | KeyboardInterrupt, cause: BaseException | None = None) -> NoReturn:
        self._failure = failure
        with suppress(RuntimeError):  # the process that keeps the store may end before all have read the message
            self._store.add(_READERS, 1)
            self._wait_for_readers()
        raise failure from cause


def _without_store(error: RuntimeError) -> str:
    return f"the process that keeps the store has ended ({error})"


def _place() -> tuple[str, str] | None:
    """Name the machine and the container whose numbers of processes this process sees; None: other systems than Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _is_alive(pid: int) -> bool:
    """Tell whether a process of this machine runs; one that has ended may wait for its parent."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")

"""Sums of the processes of one machine through shared memory, which takes a tenth of the time of a connection."""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

_FOLDER = Path("/dev/shm")
_CAPACITY = 32_768
"""Numbers of a process that fit into one turn; longer vectors take several."""
_LINE = 8
"""Numbers in a line of the processor's cache: counters in the same line would slow each other down."""
_ORDERED = ("x86_64", "AMD64")
"""Processors on which another process sees stores in the order in which they were made."""
_BUSY, _PAUSE, _PATIENCE = 2e-3, 5e-5, 0.25
"""Seconds of busy waiting, of a pause after that, and between two looks at the other processes."""

Look: TypeAlias = Callable[[Callable[[], bool]], None]


class SharedMemory:
    """
    Combines numbers of all processes of one machine, or collects their bytes. Results are equal on all of them bit for bit.

    Each process writes its numbers to its own slot, then its turn to its own counter, waits until all counters have reached
    the turn, and combines the slots in the order of the processes. There are two sets of slots: who writes to a set again has
    seen that all have taken the turn in between, and so have read this one.

    :param memory: memory that all processes see, zeros at the start
    :param rank: number of this process
    :param size: number of processes
    """

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        numbers = np.frombuffer(memory, dtype=np.float64)
        self._counters = numbers[: size * _LINE].view(np.int64)[::_LINE]
        self._slots = numbers[size * _LINE :].reshape(2, size, _CAPACITY)
        self._rank = rank
        self._turn = 0

    @classmethod
    def join(cls, rank: int, size: int, gather: Callable[[Any], list[Any]]) -> SharedMemory | None:
        """
        Make the memory; all processes must call this at the same point.

        :param rank: number of this process
        :param size: number of processes, all on this machine
        :param gather: collects an object of every process
        :return: the memory; None if one of the processes cannot use it
        """
        n_bytes = 8 * size * (_LINE + 2 * _CAPACITY)
        path = gather(_make_file(n_bytes) if rank == 0 else None)[0]
        memory = None if path is None else _open_file(path, n_bytes)
        everywhere = all(gather(memory is not None))
        if rank == 0 and path is not None:
            os.unlink(path)  # the memory lives until the last process ends, however it ends
        return cls(memory, rank, size) if everywhere and memory is not None else None

    def combine(self, values: np.ndarray, function: np.ufunc, look: Look) -> None:
        """
        Combine the numbers of all processes.

        :param values: float64, shape (n,), the same n on all of them; replaced by the result
        :param function: ``np.add`` or ``np.maximum``
        :param look: called now and then while this process waits, with a function that tells whether it still does; raises an
            error if another one has ended
        """
        for begin in range(0, len(values), _CAPACITY):
            part = values[begin : begin + _CAPACITY]
            function.reduce(self._exchange(part, look), axis=0, out=part)

    def gather(self, data: bytes, look: Look) -> list[bytearray]:
        """
        Collect the bytes of every process, which may have different lengths.

        :param data: this process's bytes
        :param look: see :meth:`combine`
        :return: the bytes in the order of the processes
        """
        lengths = self._exchange(np.array([float(len(data))]), look)[:, 0].astype(int).tolist()
        found = [bytearray(length) for length in lengths]
        for begin in range(0, max(lengths), 8 * _CAPACITY):
            part = data[begin : begin + 8 * _CAPACITY]
            part += bytes(-len(part) % 8)
            slots = self._exchange(np.frombuffer(part, dtype=np.float64), look, _CAPACITY).view(np.uint8)
            for own, slot in zip(found, slots, strict=True):
                own[begin : begin + 8 * _CAPACITY] = slot[: max(0, len(own) - begin)].data
        return found

    def _exchange(self, part: np.ndarray, look: Look, n: int | None = None) -> np.ndarray:
        """
        Return the numbers of all processes, shape (size, n), in memory that is free again after the next exchange.

        Those beyond the end of a process's part are of an earlier turn. Without ``n``, all parts have the same length.
        """
        self._turn += 1
        slots = self._slots[self._turn % 2]
        slots[self._rank, : len(part)] = part
        self._counters[self._rank] = self._turn
        self._wait(look)
        found: np.ndarray = slots[:, : len(part) if n is None else n]
        return found

    def _is_waiting(self) -> bool:
        """Tell whether a process has not taken this turn yet."""
        return bool(self._counters.min() < self._turn)

    def _wait(self, look: Look) -> None:
        """Wait until all processes have taken this turn."""
        if not self._is_waiting():
            return
        began = time.monotonic()
        next_look = began + _PATIENCE
        while self._is_waiting():
            now = time.monotonic()
            if now < began + _BUSY:
                os.sched_yield()
            else:
                time.sleep(_PAUSE)
            if now > next_look:
                look(self._is_waiting)
                next_look = now + _PATIENCE


def _make_file(n_bytes: int) -> str | None:
    """Reserve memory under a name, or return None where that is not possible."""
    if platform.machine() not in _ORDERED or not (_FOLDER.is_dir() and hasattr(os, "posix_fallocate")):
        return None
    try:
        descriptor, path = tempfile.mkstemp(prefix="sb3_trpo_", dir=_FOLDER)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)  # a container may have little of it: better to know now
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(descriptor)
    return path


def _open_file(path: str, n_bytes: int) -> mmap.mmap | None:
    try:
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError:
        return None

"""Sums of the processes of one machine through shared memory, which takes a tenth of the time of a connection."""

from __future__ import annotations

import mmap
import os
import pickle
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class SharedMemory:
    """
    Combines numbers of all processes of one machine, or collects their objects. Results are equal on all of them bit for bit.

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

    def combine(self, values: np.ndarray, function: np.ufunc, look: Callable[[], None]) -> None:
        """
        Combine the numbers of all processes.

        :param values: float64, shape (n,), the same n on all of them; replaced by the result
        :param function: ``np.add`` or ``np.maximum``
        :param look: called now and then while this process waits; raises an error if another one has ended
        """
        for begin in range(0, len(values), _CAPACITY):
            part = values[begin : begin + _CAPACITY]
            function.reduce(self._exchange(part, look), axis=0, out=part)

    def gather(self, value: Any, look: Callable[[], None]) -> list[Any]:
        """
        Collect an object of every process.

        :param value: this process's object, which can be pickled
        :param look: see :meth:`combine`
        :return: the objects in the order of the processes
        """
        data = pickle.dumps(value)
        lengths = self._exchange(np.array([float(len(data))]), look)[:, 0].astype(int).tolist()
        own = np.zeros(-(-max(lengths) // 8) * 8, dtype=np.uint8)
        own[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        numbers = own.view(np.float64)
        parts = [numbers[begin : begin + _CAPACITY] for begin in range(0, len(numbers), _CAPACITY)]
        rows = np.concatenate([self._exchange(part, look).copy() for part in parts], axis=1)
        return [pickle.loads(row.tobytes()[:length]) for row, length in zip(rows, lengths, strict=True)]

    def _exchange(self, part: np.ndarray, look: Callable[[], None]) -> np.ndarray:
        """Return the numbers of all processes, shape (size, n), in memory that is free again after the next exchange."""
        self._turn += 1
        slots = self._slots[self._turn % 2, :, : len(part)]
        slots[self._rank] = part
        self._counters[self._rank] = self._turn
        self._wait(look)
        return slots

    def _wait(self, look: Callable[[], None]) -> None:
        """Wait until all processes have taken this turn."""
        if self._counters.min() >= self._turn:
            return
        began = time.monotonic()
        next_look = began + _PATIENCE
        while self._counters.min() < self._turn:
            now = time.monotonic()
            if now < began + _BUSY:
                os.sched_yield()
            else:
                time.sleep(_PAUSE)
            if now > next_look:
                look()
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

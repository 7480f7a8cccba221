"""Torch's validation of distribution parameters, switched off for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch as th


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Let torch build distributions from non-finite parameters: the step rejects them itself."""
    _switch.off()
    try:
        yield
    finally:
        _switch.back()


class _Switch:
    """Torch's check of parameters, one for all threads: the first to come turns it off, the last to leave puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def off(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = th.distributions.Distribution._validate_args
                th.distributions.Distribution.set_default_validate_args(False)
            self._inside += 1

    def back(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                th.distributions.Distribution.set_default_validate_args(self._before)


_switch = _Switch()

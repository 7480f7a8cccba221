"""The processes that share one update, with their sums and decisions."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch as th


class Workers(Protocol):
    """
    The processes that share one update. Every sum over states and every decision involves all of them, so that all take the
    same step.
    """

    def sum(self, values: th.Tensor) -> th.Tensor:
        """
        Add up a tensor over the workers.

        :param values: this worker's tensor, of any shape
        :return: the sum, of the same shape, equal on every worker
        """

    def total(self, number: float) -> float:
        """
        Add up a number over the workers.

        :param number: this worker's number
        :return: the sum in float64, equal on every worker
        """

    def any(self, flag: bool) -> bool:
        """
        Tell whether a flag is true on any worker.

        :param flag: this worker's flag
        :return: the same answer on every worker
        """

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """
        Overwrite tensors in place with the first worker's tensors.

        :param tensors: tensors with the same shapes on every worker
        """


class Alone:
    """A single process, whose sums need no communication."""

    def sum(self, values: th.Tensor) -> th.Tensor:
        """See :meth:`Workers.sum`."""
        return values

    def total(self, number: float) -> float:
        """See :meth:`Workers.total`."""
        return number

    def any(self, flag: bool) -> bool:
        """See :meth:`Workers.any`."""
        return flag

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """See :meth:`Workers.broadcast`."""


ALONE = Alone()


def raise_together(workers: Workers, check: Callable[[], None]) -> None:
    """
    Run a check that may fail on some of the workers, and raise on all of them if it does.

    :param workers: the processes that share the update
    :param check: raises ``ValueError`` if it fails
    :raises ValueError: this worker's error, or one that says that another worker has failed
    """
    failure: ValueError | None = None
    try:
        check()
    except ValueError as error:
        failure = error
    if workers.any(failure is not None):
        raise failure or ValueError("another process has refused its part of the rollout; see the error of that process")

"""The processes that share one update, with their sums and decisions."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch as th

T = TypeVar("T")


class Workers(Protocol):
    """
    The processes that share one update. Every sum over states and every decision involves all of them, so that all take the
    same step. Each of them calls the methods in the same order.
    """

    @property
    def rank(self) -> int:
        """Return the number of this worker, from 0."""

    @property
    def size(self) -> int:
        """Return the number of workers."""

    @property
    def seconds(self) -> float:
        """Return the seconds that this worker has spent in sums and the like, waiting included."""

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

    def largest(self, number: float) -> float:
        """
        Find the largest of the workers' numbers.

        :param number: this worker's number, not NaN
        :return: the largest, equal on every worker
        """

    def any(self, flag: bool) -> bool:
        """
        Tell whether a flag is true on any worker.

        :param flag: this worker's flag
        :return: the same answer on every worker
        """

    def gather(self, value: Any) -> list[Any]:
        """
        Collect a value of every worker.

        :param value: this worker's value, which can be pickled
        :return: the values in the order of the workers, equal on every worker
        """

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """
        Overwrite tensors in place with the first worker's tensors.

        :param tensors: tensors with the same shapes on every worker
        """

    def ask_to_stop(self) -> None:
        """Ask all workers to end the training at their next step, until the next :meth:`gather`."""

    def asked_to_stop(self) -> bool:
        """
        Tell whether a worker has asked to end the training. This is no decision: only some of them may know it yet.

        :return: whether one has
        :raises RuntimeError: if a worker has failed
        """


class Alone:
    """A single process, whose sums need no communication."""

    rank = 0
    size = 1
    seconds = 0.0

    def sum(self, values: th.Tensor) -> th.Tensor:
        """See :meth:`Workers.sum`."""
        return values

    def total(self, number: float) -> float:
        """See :meth:`Workers.total`."""
        return number

    def largest(self, number: float) -> float:
        """See :meth:`Workers.largest`."""
        return number

    def any(self, flag: bool) -> bool:
        """See :meth:`Workers.any`."""
        return flag

    def gather(self, value: Any) -> list[Any]:
        """See :meth:`Workers.gather`."""
        return [value]

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """See :meth:`Workers.broadcast`."""

    def ask_to_stop(self) -> None:
        """See :meth:`Workers.ask_to_stop`."""

    def asked_to_stop(self) -> bool:
        """See :meth:`Workers.asked_to_stop`."""
        return False


ALONE = Alone()


def raise_together(workers: Workers, check: Callable[[], T]) -> T:
    """
    Run a function that may fail on some of the workers, and raise on all of them if it does.

    :param workers: the processes that share the update
    :param check: raises ``ValueError`` if it fails
    :return: this worker's result
    :raises ValueError: this worker's error, or that of another worker
    """
    result, failure = None, None
    try:
        result = check()
    except ValueError as error:
        failure = error
    if workers.any(failure is not None):
        messages = workers.gather(None if failure is None else str(failure))
        rank, message = next((rank, message) for rank, message in enumerate(messages) if message is not None)
        raise failure or ValueError(f"rank {rank} has refused its part of the rollout: {message}")
    return cast(T, result)

"""The processes that share one update: sums and decisions go through them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch as th


class Workers(Protocol):
    """
    The processes that share one update. Every sum over states and every decision is made of all of them, so that all
    take the same step.
    """

    def sum(self, values: th.Tensor) -> th.Tensor:
        """
        Add up a tensor over the workers.

        :param values: of this worker, any shape
        :return: the sum, of the same shape, equal on every worker
        """

    def total(self, number: float) -> float:
        """
        Add up a number over the workers.

        :param number: of this worker
        :return: the sum in float64, equal on every worker
        """

    def any(self, flag: bool) -> bool:
        """
        Tell whether a flag is up on any worker.

        :param flag: of this worker
        :return: the same answer on every worker
        """

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        """
        Overwrite tensors, in place, with those of the first worker.

        :param tensors: of the same shapes on every worker
        """


class Alone:
    """One process: its sums are the sums."""

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
    :raises ValueError: the one of this worker, or one that says that another worker has failed
    """
    failure: ValueError | None = None
    try:
        check()
    except ValueError as error:
        failure = error
    if workers.any(failure is not None):
        raise failure or ValueError("another process has refused its part of the rollout; its error says why")

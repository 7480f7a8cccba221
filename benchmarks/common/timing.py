"""Time calls, and compare two sides that are measured in turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th


def now() -> float:
    """
    Read the clock once a GPU in use has done its work.

    :return: the time in seconds
    """
    if th.cuda.is_available():
        th.cuda.synchronize()
    return time.perf_counter()


def seconds(function: Callable[[], object]) -> float:
    """
    Time one call.

    :param function: the function to call
    :return: seconds
    """
    started = now()
    function()
    return now() - started


def timed(function: Callable[..., Any], record: list[float], clock: Callable[[], float] = now) -> Callable[..., Any]:
    """
    Wrap a function so that each call is timed.

    :param function: the function
    :param record: a list that gets the seconds of each call
    :param clock: what the time is read from
    :return: the wrapped function
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        result = function(*args, **kwargs)
        record.append(clock() - started)
        return result

    return wrapped


class Comparison(NamedTuple):
    """
    Medians over rounds.

    :param ratio: the peer's seconds over ours, of a round
    :param ours: seconds, or a rate after :meth:`rates`
    :param peer: likewise
    """

    ratio: float
    ours: float
    peer: float

    def rates(self, amount: float) -> "Comparison":
        """
        Convert seconds to rates.

        :param amount: of work in a round
        :return: the same ratio, and the amount a second of both sides
        """
        return Comparison(self.ratio, amount / self.ours, amount / self.peer)


def in_turns(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Comparison:
    """
    Measure both sides in turns.

    :param ours: does our work of a round and returns its seconds
    :param peer: the same for the peer
    :param rounds: turns of both sides
    :return: the comparison
    """
    pairs = [(ours(), peer()) for _ in range(rounds)]
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    return Comparison(ratio, *(statistics.median(side) for side in zip(*pairs, strict=True)))

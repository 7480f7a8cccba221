"""The report of a rollout, which the workers exchange when it ends."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sb3_trpo.rollout.frozen_statistics import Moments


class Ended(NamedTuple):
    """
    An info at the end of an episode, as monitors write it.

    :param step: step of the rollout
    :param env: number of the environment among those of all workers
    :param info: the entries ``episode`` and ``is_success``, as far as there are any
    :param done: whether the episode has ended
    """

    step: int
    env: int
    info: dict[str, Any]
    done: bool


class RolloutReport(NamedTuple):
    """
    What a worker tells the others of its rollout.

    :param stopped: whether a callback has stopped the training
    :param counts: numbers of this worker that are added up, by name
    :param ended: its episodes
    :param moments: what the statistics of ``VecNormalize`` have seen; empty if there are none
    """

    stopped: bool
    counts: Counter[str]
    ended: list[Ended]
    moments: list[Moments]


def total_counts(reports: Sequence[RolloutReport]) -> Counter[str]:
    """
    Add up the numbers of all workers.

    :param reports: the report of every worker
    :return: the sums by name
    """
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.counts)
    return total


def all_ended(reports: Sequence[RolloutReport]) -> list[Ended]:
    """
    Sort the episodes of all workers as one process would see them.

    :param reports: the report of every worker
    :return: the episodes, by step and then by environment
    """
    return sorted((ended for report in reports for ended in report.ended), key=lambda ended: (ended.step, ended.env))

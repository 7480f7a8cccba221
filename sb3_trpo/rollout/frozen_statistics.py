"""Statistics of ``VecNormalize`` that stay as they are during a rollout and take it in at its end."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize


class Moments(NamedTuple):
    """
    Mean, variance and number of some rows.

    :param mean: shape of a row
    :param var: shape of a row
    :param n_rows: number of rows
    """

    mean: np.ndarray
    var: np.ndarray
    n_rows: float


class _FrozenMeanStd(RunningMeanStd):
    """A running mean and variance that keeps the rows of a rollout apart from those that it reports."""

    def __init__(self, current: RunningMeanStd) -> None:
        super().__init__(shape=current.mean.shape)
        self.mean, self.var, self.count = current.mean, current.var, current.count
        self.forget()

    def forget(self) -> None:
        self.apart = RunningMeanStd(epsilon=0.0, shape=self.mean.shape)

    def update(self, arr: np.ndarray) -> None:
        self.apart.update(arr)

    def __reduce__(self) -> Any:
        """Pickle and copy it as SB3's own, without the rows of a rollout that has not ended."""
        return RunningMeanStd, (), {"mean": self.mean, "var": self.var, "count": self.count}


def _plain(mean: np.ndarray, var: np.ndarray, count: float) -> RunningMeanStd:
    plain = RunningMeanStd(shape=mean.shape)
    plain.mean, plain.var, plain.count = mean.copy(), var.copy(), count
    return plain


class FrozenStatistics:
    """
    Keeps the statistics of a ``VecNormalize`` as they are during a rollout.

    All workers then see the same statistics, and a policy sees one normalisation in all steps of a rollout. The statistics
    are merged by the formula of Chan, Golub and LeVeque (1979), as SB3 merges those of a step. Their first values count once,
    not once per worker.

    :param normalizer: the wrapper
    """

    def __init__(self, normalizer: VecNormalize) -> None:
        self._normalizer = normalizer
        self._replace(_FrozenMeanStd)

    def _replace(self, make: Callable[[Any], RunningMeanStd]) -> None:
        """Replace all statistics of the wrapper."""
        normalizer: Any = self._normalizer
        normalizer.ret_rms = make(normalizer.ret_rms)
        if isinstance(getattr(normalizer, "obs_rms", None), dict):
            normalizer.obs_rms = {key: make(part) for key, part in normalizer.obs_rms.items()}
        elif hasattr(normalizer, "obs_rms"):
            normalizer.obs_rms = make(normalizer.obs_rms)

    def _parts(self) -> list[Any]:
        of_observations: Any = getattr(self._normalizer, "obs_rms", {})
        named = of_observations if isinstance(of_observations, dict) else {"": of_observations}
        return [*(named[key] for key in sorted(named)), self._normalizer.ret_rms]

    def gathered(self) -> list[Moments]:
        """
        Return the moments of the rollout so far.

        :return: those of each key of the observations in alphabetical order, then those of the discounted returns
        """
        return [Moments(part.apart.mean, part.apart.var, part.apart.count) for part in self._parts()]

    def merge(self, of_workers: Sequence[Sequence[Moments]]) -> None:
        """
        Take in the rollout, and begin another.

        :param of_workers: the result of :meth:`gathered` of every worker
        """
        for part, parts in zip(self._parts(), zip(*of_workers, strict=True), strict=True):
            rollout = RunningMeanStd(epsilon=0.0, shape=part.mean.shape)
            for moments in parts:
                if moments.n_rows > 0.0:
                    rollout.update_from_moments(*moments)
            if rollout.count > 0.0:
                part.update_from_moments(rollout.mean, rollout.var, rollout.count)
            part.forget()

    def restore(self, gathered: Sequence[Moments]) -> None:
        """
        Go back to the moments of the rollout at some moment.

        :param gathered: a result of :meth:`gathered`
        """
        for part, moments in zip(self._parts(), gathered, strict=True):
            part.apart.mean, part.apart.var, part.apart.count = moments

    def current(self) -> list[Moments]:
        """
        Return the statistics that the wrapper uses.

        :return: in the order of :meth:`gathered`
        """
        return [Moments(part.mean, part.var, part.count) for part in self._parts()]

    def set(self, current: Sequence[Moments]) -> None:
        """
        Set the statistics that the wrapper uses.

        :param current: a result of :meth:`current`
        """
        for part, moments in zip(self._parts(), current, strict=True):
            part.mean, part.var, part.count = moments

    def release(self) -> None:
        """Give the wrapper ordinary statistics again, which follow every step."""
        self._replace(lambda part: _plain(part.mean, part.var, part.count))

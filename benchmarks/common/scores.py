"""
Compute statistics of scores over seeds and environments.

The interquartile mean, the stratified bootstrap and the probability of improvement are those of
https://arxiv.org/abs/2108.13264. A stratum holds the scores of one algorithm on one environment, one per seed. A list of
strata of two sides has ours on every environment first, followed by the peer's in the same order.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

N_BOOTSTRAP = 10_000


def half_width(scores: np.ndarray) -> np.ndarray:
    """
    Compute half the 95% interval of the mean over seeds, by Student's t.

    :param scores: shape (seeds, ...), two seeds or more
    :return: shape (...)
    """
    half: np.ndarray = stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores, axis=0)
    return half


def summary(scores: np.ndarray) -> str:
    """Write mean, 95% interval and number of seeds."""
    if not len(scores):
        return ""
    digits = 0 if abs(scores.mean()) >= 100.0 else 1
    interval = f" ± {half_width(scores):.{digits}f}" if len(scores) > 1 else ""
    return f"{scores.mean():.{digits}f}{interval} ({len(scores)})"


def testable(ours: np.ndarray, peer: np.ndarray) -> bool:
    """
    Tell whether Welch's test applies: it needs two seeds a side, and a deviation.

    :param ours: one score a seed
    :param peer: one score a seed
    :return: whether it does
    """
    return min(len(ours), len(peer)) > 1 and bool(np.ptp(ours) + np.ptp(peer) > 0.0)


def welch(ours: np.ndarray, peer: np.ndarray) -> tuple[float, float, float]:
    """
    Compare two means by Welch's t.

    :param ours: one score a seed
    :param peer: one score a seed
    :return: difference of the means, and its 95% interval
    """
    interval = stats.ttest_ind(ours, peer, equal_var=False).confidence_interval(0.95)
    return float(ours.mean() - peer.mean()), float(interval.low), float(interval.high)


def welch_p(ours: np.ndarray, peer: np.ndarray) -> float:
    """
    Test whether two means are equal, by Welch's t.

    :param ours: one score a seed, two or more
    :param peer: one score a seed, two or more
    :return: the two-sided p
    """
    return float(stats.ttest_ind(ours, peer, equal_var=False).pvalue)


def interquartile_mean(scores: np.ndarray) -> float:
    """
    Average the middle half; of what is left out at each end, a part of a score is kept whole.

    :param scores: any shape
    :return: the mean
    """
    return float(stats.trim_mean(scores.ravel(), 0.25))


def interquartile_mean_over(strata: list[np.ndarray]) -> float:
    """
    Average the middle half of all scores, where environments count equally, however many seeds they have.

    :param strata: of one side
    :return: the mean
    """
    times = np.lcm.reduce([len(stratum) for stratum in strata])
    return interquartile_mean(np.concatenate([np.repeat(stratum, times // len(stratum)) for stratum in strata]))


def bootstrap(statistic: Callable[[list[np.ndarray]], float], strata: list[np.ndarray]) -> tuple[float, float]:
    """
    Resample the seeds of each stratum.

    :param statistic: of the strata
    :param strata: of one side or more
    :return: lower and upper end of the 95% interval
    """
    rng = np.random.default_rng(0)
    draws = [statistic([rng.choice(stratum, len(stratum)) for stratum in strata]) for _ in range(N_BOOTSTRAP)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, peer: np.ndarray) -> float:
    """
    Compute P(a run of ours beats one of the peer's), ties counting half.

    :param ours: one score a seed
    :param peer: one score a seed
    :return: the probability
    """
    gain = ours[:, None] - peer[None, :]
    return float(np.mean((gain > 0.0) + 0.5 * (gain == 0.0)))


def holm(p_values: list[float]) -> list[float]:
    """
    Correct the p-values of several tests, so that the chance of any false alarm stays at their level (Holm 1979).

    :param p_values: one a test
    :return: corrected values in the same order, at most 1
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def mean_improvement(strata: list[np.ndarray]) -> float:
    """
    Average the probability of improvement over environments.

    :param strata: of both sides
    :return: the mean
    """
    half = len(strata) // 2
    return float(np.mean([probability_of_improvement(strata[i], strata[half + i]) for i in range(half)]))


def difference(strata: list[np.ndarray]) -> float:
    """
    Subtract the peer's interquartile mean from ours.

    :param strata: of both sides
    :return: the difference
    """
    half = len(strata) // 2
    return interquartile_mean_over(strata[:half]) - interquartile_mean_over(strata[half:])


def scaled(strata: list[np.ndarray], n_envs: int) -> list[np.ndarray]:
    """
    Divide scores by the mean of the last side on their environment.

    :param strata: of any number of sides, at last the one to scale by
    :param n_envs: number of environments
    :return: the quotients
    """
    scale = [scores.mean() for scores in strata[-n_envs:]]
    return [scores / scale[i % n_envs] for i, scores in enumerate(strata)]

"""Running mean and standard deviation of numbers that arrive rollout by rollout."""

import torch as th

from sb3_trpo.step.workers import ALONE, Workers

BLOCK_ROWS = 4096
"""Number of rows that are converted to float64 at a time."""


class RunningMoments:
    """
    Gathers the mean and variance of k columns.

    The numbers are float64 on the CPU. Every operation scales exactly with the values' unit if that is a power of 2.
    """

    def __init__(self) -> None:
        self.n_rollouts = 0
        self.mean = th.zeros(0, dtype=th.float64)
        self.var = th.zeros(0, dtype=th.float64)

    @property
    def std(self) -> th.Tensor:
        """Return the standard deviations, shape (k,)."""
        return self.var.sqrt()

    def update(self, rows: th.Tensor, least_share: float = 0.0, workers: Workers = ALONE) -> None:
        """
        Merge the moments of one rollout (Chan, Golub and LeVeque 1979). All rollouts count the same.

        :param rows: shape (B, ...), finite numbers; k in each row
        :param least_share: smallest weight of the new rollout: above 0, the moments forget
        :param workers: the processes whose rows are pooled
        """
        number = th.tensor([float(len(rows))], dtype=th.float64)
        total, summed = workers.sum(th.cat([number, _sum(rows)])).tensor_split([1])
        mean = summed / total
        var = workers.sum(_sum(rows, mean)) / total
        self.n_rollouts += 1
        if self.n_rollouts == 1:
            self.mean, self.var = mean, var
            return
        share = max(1.0 / self.n_rollouts, least_share)
        difference = mean - self.mean
        self.var = (1.0 - share) * self.var + share * var + share * (1.0 - share) * difference.square()
        self.mean = self.mean + share * difference


def _sum(rows: th.Tensor, mean: th.Tensor | None = None) -> th.Tensor:
    """Add up rows, or the squares of their differences from a mean, in float64, block by block; shape (k,)."""
    parts = []
    for block in th.split(rows.detach(), BLOCK_ROWS):
        values = block.reshape(len(block), -1).cpu().double()
        parts.append((values if mean is None else (values - mean).square()).sum(dim=0))
    return th.stack(parts).sum(dim=0)

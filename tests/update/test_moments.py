"""Moments of what arrives rollout by rollout."""

import pytest
import torch as th

from sb3_trpo.step.workers import Alone
from sb3_trpo.update.moments import RunningMoments


class Twice(Alone):
    """Two workers with the same rows."""

    def sum(self, values: th.Tensor) -> th.Tensor:
        return values + values

    def total(self, number: float) -> float:
        return number + number


def random_rollouts(n: int, size: int = 5) -> list[th.Tensor]:
    generator = th.Generator().manual_seed(n)
    return [10.0 * i + th.randn(size, 2, generator=generator) for i in range(n)]


@pytest.mark.parametrize("size", [1, 5, 5000])
def test_rollouts_are_pooled(size: int) -> None:
    moments, rollouts = RunningMoments(), random_rollouts(4, size)
    for rollout in rollouts:
        moments.update(rollout)
    rows = th.cat(rollouts).double()
    th.testing.assert_close(moments.mean, rows.mean(dim=0))
    th.testing.assert_close(moments.var, rows.var(dim=0, unbiased=False))
    th.testing.assert_close(moments.std.square(), moments.var)
    assert moments.n_rollouts == 4


def test_moments_forget_with_a_least_share() -> None:
    moments = RunningMoments()
    for value in (0.0, 0.0, 0.0, 8.0):
        moments.update(th.full((3,), value), least_share=0.5)
    assert moments.mean.item() == 4.0
    assert moments.var.item() == 16.0


def test_workers_are_pooled() -> None:
    alone, shared = RunningMoments(), RunningMoments()
    for rollout in random_rollouts(3):
        alone.update(rollout)
        shared.update(rollout, workers=Twice())
    th.testing.assert_close(shared.mean, alone.mean)
    th.testing.assert_close(shared.var, alone.var)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_a_power_of_two_scales_every_bit(factor: float) -> None:
    plain, scaled = RunningMoments(), RunningMoments()
    for rollout in random_rollouts(20):
        plain.update(rollout, 0.1)
        scaled.update(factor * rollout, 0.1)
    assert th.equal(scaled.mean, factor * plain.mean)
    assert th.equal(scaled.std, factor * plain.std)


def test_integers_and_matrices() -> None:
    moments = RunningMoments()
    moments.update(th.tensor([[[0, 255]], [[100, 255]]], dtype=th.uint8))
    assert moments.mean.tolist() == [50.0, 255.0]
    assert moments.std.tolist() == [50.0, 0.0]

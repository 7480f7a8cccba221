"""Statistics cover all images seen in training mode, and do not change outside of it."""

from typing import Any

import pytest
import torch as th

from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.step.workers import Alone


def images(n: int, seed: int = 0) -> th.Tensor:
    return th.rand(n, 2, 3, 4, generator=th.Generator().manual_seed(seed)) * th.linspace(0.1, 2.0, 4) + th.arange(3.0)[:, None]


@pytest.mark.parametrize("split", [[30], [10, 20], [1, 1, 28], [7, 7, 7, 9]])
def test_statistics_of_batches_are_those_of_all_images(split: list[int]) -> None:
    everything, layer = images(30), ImageNormalization((2, 3, 4), 1000).train()
    for batch in th.split(everything, split):
        layer(batch)
    assert int(layer.n_seen) == 30
    th.testing.assert_close(layer.mean, everything.mean(dim=0))
    th.testing.assert_close(layer.var, everything.var(dim=0, correction=0).mean())
    normalised = layer.eval()(everything)
    th.testing.assert_close(normalised.mean(dim=0), th.zeros(2, 3, 4), atol=1e-5, rtol=0.0)
    th.testing.assert_close(normalised.pow(2).mean(), th.ones(()))


def test_before_the_first_image_nothing_changes() -> None:
    layer = ImageNormalization((2, 3, 4), 10)
    th.testing.assert_close(layer(images(5)), images(5))


@pytest.mark.parametrize("n_images", [0, 1000])
def test_a_new_layer_gathers_nothing(n_images: int) -> None:
    layer = ImageNormalization((2, 3, 4), n_images)
    layer(images(5))
    assert int(layer.n_seen) == 0
    assert layer.train().training is (n_images > 0)


def test_evaluation_moves_nothing() -> None:
    layer = ImageNormalization((2, 3, 4), 1000).train()
    layer(images(5))
    layer.eval()
    mean, var = layer.mean.clone(), layer.var.clone()
    layer(images(5, seed=1))
    assert th.equal(layer.mean, mean)
    assert th.equal(layer.var, var)


def test_statistics_are_fixed_after_n_images() -> None:
    layer = ImageNormalization((2, 3, 4), 10).train()
    layer(images(6))
    assert layer.train().training
    layer(images(6, seed=1))  # to the end of the batch
    assert int(layer.n_seen) == 12
    assert not layer.train().training
    mean = layer.mean.clone()
    layer(images(6, seed=2))
    assert th.equal(layer.mean, mean)


def test_images_that_are_all_the_same_give_zero() -> None:
    layer, same = ImageNormalization((2, 3, 4), 10).train(), images(1).expand(4, -1, -1, -1)
    assert not layer(same).any()
    later = layer.eval()(same + 2 / 255)
    th.testing.assert_close(later, th.full_like(same, 2.0), atol=1e-3, rtol=0.0)  # a few levels of grey, not thousands


def test_gradient_does_not_flow_into_the_statistics() -> None:
    layer, batch = ImageNormalization((2, 3, 4), 10).train(), images(5).requires_grad_()
    layer(batch).sum().backward()
    th.testing.assert_close(batch.grad, th.ones_like(batch) / layer.std)
    assert not layer.mean.requires_grad


@pytest.mark.parametrize("n_images", [-1, 1e5, float("nan"), "a"])
def test_a_bad_number_of_images_is_refused(n_images: Any) -> None:
    with pytest.raises(ValueError, match=f"`n_images` must be an integer >= 0, not {n_images!r}"):
        ImageNormalization((2, 3, 4), n_images)


def test_every_buffer_is_a_float_and_a_counter_saved_as_an_integer_can_be_loaded() -> None:
    layer = ImageNormalization((2, 3, 4), 1000)
    assert all(buffer.is_floating_point() for buffer in layer.buffers())
    layer.load_state_dict({**layer.state_dict(), "n_seen": th.tensor(12_345)})
    assert int(layer.n_seen) == 12_345
    assert layer.n_seen.is_floating_point()


class Summing(Alone):
    """A worker whose sums include those that another one has passed before."""

    size = 2

    def __init__(self, others: list[th.Tensor]) -> None:
        self.others = others

    def sum(self, values: th.Tensor) -> th.Tensor:
        return values + self.others.pop(0)


class Listening(Alone):
    """A worker that notes what it passes."""

    def __init__(self) -> None:
        self.passed: list[th.Tensor] = []

    def sum(self, values: th.Tensor) -> th.Tensor:
        self.passed.append(values.clone())
        return values


@pytest.mark.parametrize("n_before", [0, 5])
def test_workers_merge_to_the_statistics_of_all_images(n_before: int) -> None:
    rows = th.rand(n_before + 7 + 11, 2, 3, 3)
    common, one, other, whole = (ImageNormalization((2, 3, 3), 100).train() for _ in range(4))
    if n_before:
        common(rows[:n_before])
    for layer in (one, other):
        layer.load_state_dict(common.state_dict())
    before = [buffer.clone() for buffer in common.buffers()]
    one(rows[n_before:-11])
    other(rows[-11:])
    whole(rows)
    listening = Listening()
    other.merge(before, listening)
    one.merge(before, Summing(listening.passed))
    assert one.n_seen.item() == len(rows)
    th.testing.assert_close(one.mean, rows.mean(dim=0))
    th.testing.assert_close(one.var, whole.var)

"""Normalises images: does for a convolutional network what ``VecNormalize`` does for an MLP."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_trpo.checks import check_integers
from sb3_trpo.step.workers import Workers

_EPS = 1e-8
"""Added to the variance, as in SB3's ``VecNormalize``."""

_LEAST_STD = 1.0 / 255.0
"""One level of grey: images that are all the same at first may change later."""


class ImageNormalization(nn.Module):
    """
    Computes (x - mean) / std, with a mean for each pixel and one standard deviation for all pixels.

    The frames of a game are mostly alike. In raw images the common part dominates every layer: the Fisher matrix has one
    eigenvalue far above all others, and a step of fixed KL mostly changes the policy in the same way in every state. Once
    the mean is subtracted, the network reads the differences between states.

    The layer gathers its statistics from the first ``n_images`` images that it sees in training mode. After that they are
    fixed. A new layer is in evaluation mode, so a saved policy does not change until it is trained again. Before the first
    image the layer changes nothing. Source: LeCun, Bottou, Orr and Müller, Efficient BackProp, section 4.3.

    :param shape: shape of an image, (c, h, w)
    :param n_images: number of images from which the statistics are computed, rounded up to whole rollouts; with 0 the layer
        never changes anything
    :raises ValueError: if ``n_images`` is not an integer of at least 0
    """

    def __init__(self, shape: Sequence[int], n_images: int) -> None:
        super().__init__()
        check_integers(0, n_images=n_images)
        self.n_images = n_images
        self.mean: th.Tensor
        self.var: th.Tensor
        self.n_seen: th.Tensor
        self.register_buffer("mean", th.zeros(*shape))
        self.register_buffer("var", th.ones(()))
        self.register_buffer("n_seen", th.zeros(()))  # a float, as tools for parameters expect; exact up to 2**24
        self.training = False

    def train(self, mode: bool = True) -> "ImageNormalization":
        """
        Switch training mode on or off.

        :param mode: whether to gather statistics, as long as they are not fixed
        :return: self
        """
        return super().train(mode and int(self.n_seen) < self.n_images)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        Normalise images, and gather their statistics in training mode.

        :param images: shape (B, c, h, w)
        :return: normalised images of the same shape
        """
        if self.training and len(images) > 0:
            self._observe(images.detach())
        return (images - self.mean) / self.std

    @property
    def std(self) -> th.Tensor:
        """Return the standard deviation, shape ()."""
        return (self.var + _EPS).sqrt().clamp(min=_LEAST_STD)

    def _observe(self, images: th.Tensor) -> None:
        """Merge the moments of a batch (Chan, Golub and LeVeque 1979), the variance averaged over the pixels."""
        seen, new = int(self.n_seen), len(images)
        share = new / (seen + new)
        mean = images.mean(dim=0)
        within, between = (images - mean).pow(2).mean(), (mean - self.mean).pow(2).mean()
        self.var.copy_(within if seen == 0 else (1 - share) * self.var + share * within + share * (1 - share) * between)
        self.mean.add_(share * (mean - self.mean))
        self.n_seen.add_(new)

    def merge(self, before: Sequence[th.Tensor], workers: Workers) -> None:
        """
        Merge the statistics that several workers have gathered from one common state.

        :param before: mean, variance and number of images before, equal on all workers
        :param workers: the workers
        """
        own, common = (_power_sums(*parts) for parts in ((self.mean, self.var, self.n_seen), before))
        n, mean, square = (old + workers.sum(new - old) for new, old in zip(own, common, strict=True))
        if n.item() > 0.0:
            mean = mean / n
            self.var.copy_(square / n - mean.square().mean())
            self.mean.copy_(mean)
            self.n_seen.copy_(n)


def _power_sums(mean: th.Tensor, var: th.Tensor, n_seen: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """Compute number of images, sum of the images, and sum of their squares averaged over the pixels, in float64."""
    n, mean = n_seen.double(), mean.double()
    return n, n * mean, n * (var.double() + mean.square().mean())

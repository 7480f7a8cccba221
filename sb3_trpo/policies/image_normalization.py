"""Images minus their mean, over their standard deviation: for a convolutional network what ``VecNormalize`` is for an MLP."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_trpo.checks import check_integers

_EPS = 1e-8
"""Added to the variance, as in SB3's ``VecNormalize``."""

_LEAST_STD = 1.0 / 255.0
"""One step of grey: images that were all the same at first may change later."""


class ImageNormalization(nn.Module):
    """
    (x - mean) / std, where each pixel has its own mean and all pixels have one standard deviation.

    Frames of a game share most of what they show. As raw input the shared part dominates every layer: the Fisher matrix has
    one eigenvalue far above all others, and a step of fixed KL goes into a change of the policy that is the same in every
    state. Without the mean the network reads what differs between states.

    The statistics are gathered over the first ``n_images`` images that are seen in training mode, and are fixed from then
    on. A new layer is in evaluation mode: a saved policy stays as it is until it is trained again. Before the first image
    the layer changes nothing. Source: LeCun, Bottou, Orr and Müller, Efficient BackProp, section 4.3.

    :param shape: shape of an image, (c, h, w)
    :param n_images: images from which the statistics are taken, to the end of the rollout that reaches the number; at 0
        the layer never changes anything
    :raises ValueError: if it is no integer of at least 0
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
        self.register_buffer("n_seen", th.zeros((), dtype=th.long))
        self.training = False

    def train(self, mode: bool = True) -> "ImageNormalization":
        """
        :param mode: whether to gather statistics, as long as they are not fixed
        :return: self
        """
        return super().train(mode and int(self.n_seen) < self.n_images)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        :param images: shape (B, c, h, w)
        :return: the same, normalised
        """
        if self.training and len(images) > 0:
            self._observe(images.detach())
        return (images - self.mean) / self.std

    @property
    def std(self) -> th.Tensor:
        """The standard deviation, shape ()."""
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

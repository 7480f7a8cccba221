"""Networks for images: SB3's on normalised images, and one as small as the paper's."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

from sb3_trpo.policies.image_normalization import ImageNormalization


class PaperCNN(BaseFeaturesExtractor):
    """
    A network as small as the network with which the TRPO paper played Atari: 34 thousand parameters, a fiftieth of SB3's
    ``NatureCNN``. It normalises the images as :class:`NormalizedCNN` does (our addition: the paper does not normalise).

    Source: section 8.2 of the paper (https://arxiv.org/abs/1502.05477): two convolutions of 16 channels, a hidden layer of 20,
    33,500 parameters. The paper does not give the filters; 8 x 8 with stride 4 and 4 x 4 with stride 2 come near that number.

    :param observation_space: images with the channels first
    :param features_dim: units of the hidden layer
    :param normalized_image: whether the images are in [0, 1] already (see ``normalize_images`` of the policy)
    :param n_images: number of images from which mean and standard deviation are computed; 0: raw images
    :raises ValueError: if the observations are not images, or are smaller than 20 x 20
    """

    smallest: ClassVar[int] = 20
    """Smallest width and height, in pixels, for the convolutions."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 20,
        normalized_image: bool = False,
        n_images: int = 10_000,
    ) -> None:
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ValueError(
                f"`PaperCNN` needs images (a Box of uint8 in [0, 255] with 3 dimensions), not {observation_space}"
            )
        _check_pixels(type(self), observation_space)
        channels, height, width = observation_space.shape or ()
        super().__init__(observation_space, features_dim)
        self.normalization = ImageNormalization((channels, height, width), n_images)
        self.cnn = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 16, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with th.no_grad():
            n_flat = self.cnn(th.zeros(1, channels, height, width)).shape[1]
        self.linear = nn.Sequential(nn.Linear(n_flat, features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Compute the features.

        :param observations: shape (B, c, h, w)
        :return: features, shape (B, features_dim)
        """
        features: th.Tensor = self.linear(self.cnn(self.normalization(observations)))
        return features


class NormalizedCNN(NatureCNN):
    """
    SB3's ``NatureCNN`` on images minus their mean, divided by their standard deviation; see
    :class:`~sb3_trpo.policies.image_normalization.ImageNormalization`.

    :param observation_space: images with the channels first
    :param features_dim: units of the hidden layer
    :param normalized_image: whether the images are in [0, 1] already (see ``normalize_images`` of the policy)
    :param n_images: number of images from which mean and standard deviation are computed
    :raises ValueError: if the images are smaller than 36 x 36
    """

    smallest: ClassVar[int] = 36
    """Smallest width and height, in pixels, for the convolutions."""

    def __init__(
        self,
        observation_space: spaces.Box,
        features_dim: int = 512,
        normalized_image: bool = False,
        n_images: int = 10_000,
    ) -> None:
        _check_pixels(type(self), observation_space)
        super().__init__(observation_space, features_dim, normalized_image)
        self.normalization = ImageNormalization(observation_space.shape, n_images)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Compute the features.

        :param observations: shape (B, c, h, w)
        :return: features, shape (B, features_dim)
        """
        return super().forward(self.normalization(observations))


def _check_pixels(extractor: type[NormalizedCNN | PaperCNN], space: spaces.Space[Any]) -> None:
    """Refuse images smaller than the filters. SB3 refuses inputs that are not images."""
    pixels = (space.shape or ())[1:]
    if len(pixels) == 2 and min(pixels) < extractor.smallest:
        raise ValueError(
            f"`{extractor.__name__}` needs images of {extractor.smallest} x {extractor.smallest} pixels or more, not "
            f"{pixels[0]} x {pixels[1]}"
        )

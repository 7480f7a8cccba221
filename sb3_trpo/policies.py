"""The policies that the aliases name, SB3's with other defaults, and networks for images: the default one and the paper's."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

from sb3_trpo.image_normalization import ImageNormalization

MlpPolicy = ActorCriticPolicy


class PaperCNN(BaseFeaturesExtractor):
    """
    A network as small as that with which the TRPO paper played Atari: 34 thousand parameters, a fiftieth of SB3's
    ``NatureCNN``. It reads the images minus their mean, over their standard deviation, as :class:`NormalizedCNN` does, of
    which the paper says nothing.

    Source: section 8.2 of the paper (https://arxiv.org/abs/1502.05477): two convolutions of 16 channels, a hidden layer of 20,
    33,500 parameters. It does not tell the filters; 8 x 8 with stride 4 and 4 x 4 with stride 2 come near that number.

    :param observation_space: images with the channels first
    :param features_dim: units of the hidden layer
    :param normalized_image: whether the images are in [0, 1] already (see ``normalize_images`` of the policy)
    :param n_images: images from which mean and standard deviation are taken; 0: raw images
    :raises ValueError: if the observations are no images, or are smaller than 20 x 20
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 20,
        normalized_image: bool = False,
        n_images: int = 100_000,
    ) -> None:
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ValueError(
                f"`PaperCNN` needs images (a Box of uint8 in [0, 255] with 3 dimensions), not {observation_space}"
            )
        channels, height, width = observation_space.shape or ()
        if min(height, width) < 20:
            raise ValueError(f"`PaperCNN` needs images of 20 x 20 pixels or more, not {height} x {width}")
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
        :param observations: shape (B, c, h, w)
        :return: features, shape (B, features_dim)
        """
        features: th.Tensor = self.linear(self.cnn(self.normalization(observations)))
        return features


class NormalizedCNN(NatureCNN):
    """
    SB3's ``NatureCNN`` on images minus their mean, over their standard deviation; see
    :class:`~sb3_trpo.image_normalization.ImageNormalization`.

    :param observation_space: images with the channels first
    :param features_dim: units of the hidden layer
    :param normalized_image: whether the images are in [0, 1] already (see ``normalize_images`` of the policy)
    :param n_images: images from which mean and standard deviation are taken
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        features_dim: int = 512,
        normalized_image: bool = False,
        n_images: int = 100_000,
    ) -> None:
        super().__init__(observation_space, features_dim, normalized_image)
        self.normalization = ImageNormalization(observation_space.shape, n_images)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (B, c, h, w)
        :return: features, shape (B, features_dim)
        """
        return super().forward(self.normalization(observations))


class _SeparateExtractors(ActorCriticPolicy):
    """
    Actor and critic have features extractors of their own unless told otherwise: a shared one belongs to the actor, and
    leaves the critic the layers behind it.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"share_features_extractor": False, **kwargs})

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves it out, and what a policy's `save` wrote would be loaded into the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CnnPolicy(_SeparateExtractors, ActorCriticCnnPolicy):
    """
    SB3's ``ActorCriticCnnPolicy`` with separate features extractors and, unless there is a ``features_extractor_class``,
    :class:`NormalizedCNN`, which is followed by no hidden layers, as ``NatureCNN`` is in SB3.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    default_extractor: ClassVar[type[BaseFeaturesExtractor]] = NormalizedCNN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        extractor = kwargs.setdefault("features_extractor_class", self.default_extractor)
        if extractor is self.default_extractor and kwargs.get("net_arch") is None:
            kwargs["net_arch"] = []
        super().__init__(*args, **kwargs)


class PaperCnnPolicy(CnnPolicy):
    """
    :class:`CnnPolicy` with :class:`PaperCNN` in place of :class:`NormalizedCNN`, which makes it several times faster.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    default_extractor = PaperCNN


class MultiInputPolicy(_SeparateExtractors, MultiInputActorCriticPolicy):
    """
    SB3's ``MultiInputActorCriticPolicy`` with separate features extractors.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

"""The policies behind the aliases: SB3's, with other defaults."""

from typing import Any, ClassVar

from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.loading import SafelyLoaded

MlpPolicy = ActorCriticPolicy

_N_BEFORE_NET_ARCH = 3
"""Positional arguments of SB3's policies before ``net_arch``: the spaces and the learning rate."""


class SeparateExtractors(SafelyLoaded):
    """
    A policy whose actor and critic have separate features extractors by default. A shared extractor belongs to the actor, so
    the critic trains only the layers after it.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"share_features_extractor": False, **kwargs})

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves it out, so a policy saved by its `save` method would be loaded with the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CnnPolicy(SeparateExtractors, ActorCriticCnnPolicy):
    """
    SB3's ``ActorCriticCnnPolicy`` with separate features extractors.

    Without ``features_extractor_class`` these are :class:`NormalizedCNN`, with no hidden layers after them, as after
    ``NatureCNN`` in SB3.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    default_extractor: ClassVar[type[BaseFeaturesExtractor]] = NormalizedCNN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        extractor = kwargs.setdefault("features_extractor_class", self.default_extractor)
        if extractor is self.default_extractor and len(args) <= _N_BEFORE_NET_ARCH and kwargs.get("net_arch") is None:
            kwargs["net_arch"] = []
        if isinstance(extractor, type) and issubclass(extractor, PaperCNN) and not kwargs.get("normalize_images", True):
            # SB3 passes this to its own extractors only
            given = kwargs.get("features_extractor_kwargs") or {}
            kwargs["features_extractor_kwargs"] = {"normalized_image": True, **given}
        super().__init__(*args, **kwargs)


class PaperCnnPolicy(CnnPolicy):
    """
    :class:`CnnPolicy` with :class:`PaperCNN` in place of :class:`NormalizedCNN`. It is several times faster.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    default_extractor = PaperCNN


class MultiInputPolicy(SeparateExtractors, MultiInputActorCriticPolicy):
    """
    SB3's ``MultiInputActorCriticPolicy`` with separate features extractors.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

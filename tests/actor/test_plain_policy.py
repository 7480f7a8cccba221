"""A policy is plain or there is a reason why not; users register their own extractors."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from sb3_trpo import TRPO, register_extractor
from sb3_trpo.actor import plain_policy
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from tests.helpers import actor_of, why_not_fast
from tests.toy_envs import RandomEnv


class Encoder(BaseFeaturesExtractor):
    """One layer before the two networks."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_policy, "_EXTRACTORS", dict(plain_policy._EXTRACTORS))


def make_model() -> TRPO:
    kwargs: dict[str, Any] = {"features_extractor_class": Encoder, "share_features_extractor": False}
    return TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=32, seed=0, policy_kwargs=kwargs)


@pytest.mark.usefixtures("registry")
def test_a_registered_extractor_is_computed_by_hand_with_the_same_result() -> None:
    assert why_not_fast(make_model()) == "the features extractor is a Encoder"
    by_torch = make_model().learn(64)
    register_extractor(Encoder, lambda extractor: list(extractor.layers))
    model = make_model()
    assert why_not_fast(model) is None
    assert isinstance(actor_of(model.policy), HandActor)
    assert by_torch.last_step is not None
    assert by_torch.last_step.accepted
    model.learn(64)
    assert model.last_step is not None
    assert model.last_step.accepted


@pytest.mark.usefixtures("registry")
def test_layers_that_cannot_be_computed_are_a_reason() -> None:
    register_extractor(Encoder, lambda extractor: [*extractor.layers, nn.LayerNorm(5)])
    plain = PlainPolicy.of(make_model().policy)
    assert not isinstance(plain, Reason)
    assert plain.actor == "the network has a LayerNorm where a Linear is expected"
    assert isinstance(plain.critic, Reason)


def test_a_subclass_of_a_known_extractor_is_not_plain() -> None:
    class Sub(FlattenExtractor):
        pass

    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8, policy_kwargs={"features_extractor_class": Sub})
    assert PlainPolicy.of(model.policy) == "the features extractor is a Sub"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, lambda _: []), "`extractor_class` must be a subclass of torch.nn.Module, not 3"),
        ((int, lambda _: []), "`extractor_class` must be a subclass of torch.nn.Module"),
        ((Encoder, []), r"`layers` must be a function of the extractor, not \[\]"),
    ],
)
def test_nonsense_is_refused(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_extractor(*arguments)

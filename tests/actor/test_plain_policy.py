"""A policy is plain or there is a reason why not; users register their own extractors."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_trpo import TRPO, register_extractor
from sb3_trpo.actor import plain_policy
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from tests.helpers import actor_of, collect, why_not_fast
from tests.toy_envs import IMAGE, VECTOR, RandomEnv


class Encoder(BaseFeaturesExtractor):
    """One layer before the two networks."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)
        self.layers = nn.Sequential(nn.Linear(get_flattened_obs_dim(observation_space), 5), nn.Tanh())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_policy, "_EXTRACTORS", dict(plain_policy._EXTRACTORS))


def make_model(space: spaces.Space[Any] = VECTOR) -> TRPO:
    kwargs: dict[str, Any] = {"features_extractor_class": Encoder, "share_features_extractor": False}
    return TRPO("MlpPolicy", RandomEnv(space), n_steps=64, batch_size=32, seed=0, policy_kwargs=kwargs)


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
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-9.0, 9.0, (3,), np.float64),
        spaces.Box(-9, 9, (3,), np.int64),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(4),
    ],
)
def test_a_registered_extractor_reads_what_the_policy_reads(space: spaces.Space[Any]) -> None:
    register_extractor(Encoder, lambda extractor: list(extractor.layers))
    model = collect(make_model(space))
    assert why_not_fast(model) is None
    observations = th.from_numpy(model.rollout_buffer.observations.reshape(64, -1))
    with th.no_grad():
        values = model.policy.predict_values(observations).numpy()
    np.testing.assert_allclose(model.rollout_buffer.values, values, atol=1e-5)
    model.train()
    assert model.last_step is not None
    assert model.last_step.accepted


@pytest.mark.usefixtures("registry")
def test_an_extractor_of_several_dimensions_is_not_computed_by_hand() -> None:
    class Rows(Encoder):
        def forward(self, observations: th.Tensor) -> th.Tensor:
            features: th.Tensor = self.layers(observations.flatten(1))
            return features

    register_extractor(Rows, lambda extractor: list(extractor.layers))
    for space in (spaces.Box(-1.0, 1.0, (2, 3), np.float32), IMAGE):
        kwargs = {"features_extractor_class": Rows}
        policy = TRPO("MlpPolicy", RandomEnv(space), n_steps=8, batch_size=8, policy_kwargs=kwargs).policy
        assert isinstance(PlainPolicy.of(policy), Reason)


@pytest.mark.usefixtures("registry")
def test_layers_that_cannot_be_computed_by_hand_give_a_reason() -> None:
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
def test_bad_arguments_are_refused(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_extractor(*arguments)


def surgery(policy: ActorCriticPolicy) -> None:
    extractor: Any = policy.features_extractor
    extractor.flatten = nn.Sequential(nn.Flatten(), nn.LayerNorm(3))


def added_part(policy: ActorCriticPolicy) -> None:
    policy.features_extractor.add_module("gate", nn.Tanh())


def partial_flatten(policy: ActorCriticPolicy) -> None:
    extractor: Any = policy.features_extractor
    extractor.flatten = nn.Flatten(2)


class Special(nn.Parameter):
    """A parameter that may compute something else."""


def special_parameter(policy: ActorCriticPolicy) -> None:
    net: Any = policy.action_net
    net.bias = Special(net.bias.detach())


def accumulation_hook(policy: ActorCriticPolicy) -> None:
    weight: Any = policy.value_net.weight
    weight.register_post_accumulate_grad_hook(lambda parameter: None)


def patched_distribution(policy: ActorCriticPolicy) -> None:
    distribution: Any = policy.action_dist
    distribution.sample = distribution.mode


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (surgery, "the FlattenExtractor has other parts than usual"),
        (added_part, "the FlattenExtractor has other parts than usual"),
        (partial_flatten, "the FlattenExtractor does not flatten everything"),
        (special_parameter, "the bias of the Linear is a Special"),
        (accumulation_hook, "the weight of the Linear has hooks"),
        (patched_distribution, "`sample` of the DiagGaussianDistribution is patched"),
    ],
)
def test_an_altered_policy_is_not_plain(alter: Callable[[ActorCriticPolicy], None], reason: str) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    assert isinstance(PlainPolicy.of(model.policy), PlainPolicy)
    alter(model.policy)
    assert PlainPolicy.of(model.policy) == reason


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of torch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


watching: Any = Watching


class WatchingFunctions(TorchFunctionMode):
    """Sees every call of a function of torch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (watching(), "a mode of torch watches its functions"),
        (WatchingFunctions(), "a mode of torch watches its functions"),
        (th.autocast("cpu"), "torch.autocast is on"),
    ],
)
def test_what_watches_torch_sees_the_policy(context: AbstractContextManager[Any], reason: str) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    with context:
        assert PlainPolicy.of(model.policy) == reason
    assert isinstance(PlainPolicy.of(model.policy), PlainPolicy)


def test_a_default_device_is_no_reason() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    with th.device("cpu"):
        assert isinstance(PlainPolicy.of(model.policy), PlainPolicy)


@pytest.mark.parametrize(
    "register", [register_module_forward_hook, register_module_forward_pre_hook, register_module_full_backward_hook]
)
def test_global_hooks_see_the_policy(register: Callable[..., Any]) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    with register(lambda *_: None):
        assert PlainPolicy.of(model.policy) == "torch has global hooks on modules"
    assert isinstance(PlainPolicy.of(model.policy), PlainPolicy)


def test_values_and_kl_of_an_altered_extractor_are_the_policys() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=32, seed=0)
    surgery(model.policy)
    collect(model)
    buffer = model.rollout_buffer
    observations = th.as_tensor(buffer.observations.reshape(-1, 3))
    with th.no_grad():
        values = model.policy.predict_values(observations)
        old = copy.deepcopy(model.policy.get_distribution(observations).distribution)
        th.testing.assert_close(values.flatten(), th.as_tensor(buffer.values.flatten()))
        with th.enable_grad():
            model.train()
        new = model.policy.get_distribution(observations).distribution
    assert isinstance(old, th.distributions.Normal)
    assert isinstance(new, th.distributions.Normal)
    assert model.last_step is not None
    kl = th.distributions.kl_divergence(old, new).sum(dim=1).mean().item()
    assert kl == pytest.approx(model.last_step.kl, rel=1e-3)
    assert 0.0 < kl <= model.target_kl * 1.0001  # type: ignore[operator]

"""Running statistics follow the data; nothing else of the policy does."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, MlpExtractor
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.policies.image_networks import NormalizedCNN
from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.step.report import Outcome, Trial
from sb3_trpo.update.running_statistics import MovingStatistics, refresh_running_statistics, refresh_within_bound
from tests.helpers import batch_of, collect
from tests.toy_envs import IMAGE, VECTOR, RandomEnv


class NormalisedFeatures(BaseFeaturesExtractor):
    """Batch norm, then dropout."""

    def __init__(self, observation_space: object) -> None:
        super().__init__(VECTOR, 8)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


def make(
    share: bool = True, features_extractor_class: type[BaseFeaturesExtractor] = NormalisedFeatures, **kwargs: int
) -> TRPO:
    policy_kwargs = {"features_extractor_class": features_extractor_class, "share_features_extractor": share}
    settings = {"n_steps": 64, "batch_size": 16, "seed": 0, **kwargs}
    return TRPO("MlpPolicy", RandomEnv(), policy_kwargs=policy_kwargs, **settings)  # type: ignore[arg-type]


def moving(model: TRPO) -> MovingStatistics:
    return MovingStatistics.of(model.interface, batch_of(model))


def norms(policy: ActorCriticPolicy) -> list[nn.BatchNorm1d]:
    return [module for module in policy.modules() if isinstance(module, nn.BatchNorm1d)]


class Scaled(FlattenExtractor):
    """Divides by a constant, which is a buffer or an attribute."""

    def __init__(self, observation_space: Any, as_buffer: bool) -> None:
        super().__init__(observation_space)
        self.scale: th.Tensor
        scale = th.tensor([2.0, 3.0, 0.5])
        if as_buffer:
            self.register_buffer("scale", scale)
        else:
            self.scale = scale

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations) / self.scale


def test_constant_buffers_take_nothing_from_the_bound() -> None:
    def train(as_buffer: bool) -> TRPO:
        kwargs = {"features_extractor_class": Scaled, "features_extractor_kwargs": {"as_buffer": as_buffer}}
        return TRPO("MlpPolicy", RandomEnv(), policy_kwargs=kwargs, n_steps=64, batch_size=16, seed=0).learn(192)

    attribute, buffer = train(False), train(True)
    assert not moving(buffer).layers
    assert attribute.last_step == buffer.last_step
    assert all(map(th.equal, attribute.policy.parameters(), buffer.policy.parameters()))


def test_statistics_of_the_critic_take_nothing_from_the_bound() -> None:
    model = collect(make(share=False))
    model.policy.pi_features_extractor = FlattenExtractor(VECTOR)
    model.policy.mlp_extractor = MlpExtractor(3, {"pi": [64], "vf": []}, nn.Tanh)
    model.policy.mlp_extractor.value_net = nn.Sequential(nn.Linear(8, 64), nn.Tanh())
    assert [type(layer) for layer in moving(model).layers] == [nn.BatchNorm1d]
    assert not moving(model).move_actor
    assert moving(collect(make(share=False))).move_actor


def test_trying_which_statistics_move_changes_nothing() -> None:
    model = collect(make())
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    assert moving(model).layers
    assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    assert not any(module.training for module in model.policy.modules())


def test_a_partial_move_does_not_count_the_images() -> None:
    kwargs = {"features_extractor_class": NormalizedCNN, "net_arch": []}
    model = collect(TRPO("CnnPolicy", RandomEnv(IMAGE), policy_kwargs=kwargs, n_steps=32, batch_size=32, seed=0))
    trials = iter([1.0, 0.0])
    layers = moving(model).layers
    observations = batch_of(model).states.observations
    assert isinstance(observations, th.Tensor)
    images = observations.float() / 255.0
    assert refresh_within_bound(model.interface, layers, batch_of(model), lambda _: Trial(0.0, next(trials)), 0.5) == 0.0
    layer = layers[0]
    assert isinstance(layer, ImageNormalization)
    assert layer.n_seen == 0
    th.testing.assert_close(layer.mean, 0.5 * images.mean(0))
    refresh_within_bound(model.interface, layers, batch_of(model), lambda _: Trial(0.0, 0.0), 0.5)
    assert layer.n_seen == 32
    th.testing.assert_close(layer.mean, images.mean(0))


@pytest.mark.parametrize("share", [True, False])
def test_statistics_follow_the_data(share: bool) -> None:
    model = make(share)
    before = [norm.running_mean.clone() for norm in norms(model.policy)]  # type: ignore[union-attr]
    model.learn(64)
    assert len(before) == (1 if share else 2)
    for norm, mean in zip(norms(model.policy), before, strict=True):
        assert norm.running_mean is not None
        assert not th.equal(norm.running_mean, mean)
        assert norm.num_batches_tracked is not None
        assert norm.num_batches_tracked.item() == 1
    assert not any(module.training for module in model.policy.modules())


def test_statistics_stand_still_while_acting_and_predicting() -> None:
    model = make()
    seen = set()

    def look(*_: object) -> bool:
        seen.add(norms(model.policy)[0].running_mean.sum().item())  # type: ignore[union-attr]
        return True

    model.learn(64, callback=look)
    assert len(seen) == 1
    before = norms(model.policy)[0].running_mean.clone()  # type: ignore[union-attr]
    model.predict(VECTOR.sample())
    assert th.equal(norms(model.policy)[0].running_mean, before)  # type: ignore[arg-type]


def test_dropout_and_batch_norm_do_not_disturb_the_step() -> None:
    model = make()
    for _ in range(5):
        model.learn(64, reset_num_timesteps=False)
        assert model.last_step is not None
        assert model.last_step.accepted
        assert 0.0 < model.last_step.kl <= 0.02


@pytest.mark.parametrize("n_envs", [1, 8])
def test_the_statistics_are_the_whole_rollouts_whatever_the_chunks_of_the_step(n_envs: int) -> None:
    class Drift(RandomEnv):
        """Observations that depend on the time, as they do where episodes are long."""

        def step(self, action: Any) -> Any:
            obs, *rest = super().step(action)
            self.drift = getattr(self, "drift", 0.0) + n_envs / 2048
            return np.float32(0.01 * obs + self.drift), *rest

    found = []
    for chunk_size in (None, 7):
        kwargs = {"features_extractor_class": NormalisedFeatures}
        env = make_vec_env(partial(Drift, length=10**6), n_envs=n_envs)
        model = TRPO("MlpPolicy", env, n_steps=2048 // n_envs, seed=0, policy_kwargs=kwargs, chunk_size=chunk_size)
        first = model.policy.features_extractor.get_submodule("layers.0")
        assert isinstance(first, nn.Linear)
        with th.no_grad():
            first.weight.fill_(1.0)
            first.bias.zero_()
        collect(model)
        refresh_running_statistics(model.interface, moving(model).layers, batch_of(model))
        norm = norms(model.policy)[0]
        assert norm.num_batches_tracked is not None
        assert norm.running_mean is not None
        assert norm.num_batches_tracked.item() == 16
        found.append(norm.running_mean[0].item())
    # three entries with a mean of about 1/2 over the rollout; sixteen steps go 1 - 0.9 ** 16 of the way
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] == pytest.approx(1.5 * (1 - 0.9**16), abs=0.1)


class RunningNorm(nn.Module):
    """A custom running average, with dropout inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", th.zeros((), dtype=th.long))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: th.Tensor) -> th.Tensor:
        assert isinstance(self.count, th.Tensor)
        assert not self.dropout.training
        if self.training:
            self.count += len(x)
        dropped: th.Tensor = self.dropout(x)
        return dropped


class OwnFeatures(NormalisedFeatures):
    def __init__(self, observation_space: object) -> None:
        super().__init__(observation_space)
        self.layers = nn.Sequential(nn.Linear(3, 8), RunningNorm(), nn.utils.spectral_norm(nn.Linear(8, 8)))


def test_custom_averages_follow_the_data() -> None:
    model = make(features_extractor_class=OwnFeatures)
    norm, before = model.policy.features_extractor.get_submodule("layers.1"), model.policy.state_dict()
    vector = before["features_extractor.layers.2.weight_u"].clone()
    model.learn(64 * 2)
    assert int(norm.get_buffer("count")) == 128
    assert not th.equal(model.policy.state_dict()["features_extractor.layers.2.weight_u"], vector)
    assert not any(module.training for module in model.policy.modules())


class SpectralFeatures(NormalisedFeatures):
    """A layer whose largest singular value is 1, by a power iteration that goes on in training mode only."""

    def __init__(self, observation_space: object) -> None:
        super().__init__(observation_space)
        self.layers = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)))


@pytest.mark.parametrize("share", [True, False])
def test_spectral_norm_follows_the_weights(share: bool) -> None:
    model = make(share, SpectralFeatures, n_steps=4096)
    th.manual_seed(0)
    largest = []
    for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
        original = extractor.get_parameter("layers.0.parametrizations.weight.original")
        original.data.copy_(th.randn(8, 3))
    for _ in range(2):
        for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
            weight = extractor.get_submodule("layers.0").weight
            assert isinstance(weight, th.Tensor)
            largest.append(th.linalg.matrix_norm(weight, 2).item())
        model.learn(4096)
    assert min(abs(value - 1.0) for value in largest[:2]) > 0.04
    assert largest[2:] == pytest.approx([1.0, 1.0], abs=0.02)


class FrozenFeatures(NormalisedFeatures):
    """Keeps its batch norm in evaluation mode, as frozen backbones do."""

    def train(self, mode: bool = True) -> "FrozenFeatures":
        super().train(mode)
        self.layers[1].eval()
        return self


def test_frozen_statistics_stay_frozen() -> None:
    model = make(features_extractor_class=FrozenFeatures).learn(64)
    assert norms(model.policy)[0].num_batches_tracked.item() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [1, 16, 64, 128, 256])
def test_windows_of_any_length_refresh_the_statistics(length: int) -> None:
    model = collect(make(n_steps=256))
    batch = batch_of(model)
    batch = replace(batch, states=replace(batch.states, unit_starts=th.arange(0, 256, length)))
    refresh_running_statistics(model.interface, moving(model).layers, batch)
    (norm,) = norms(model.policy)
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == (1 if length == 256 else 2)


def shares_that_pass(limit: float) -> tuple[list[float], float | None, th.Tensor]:
    """Let the KL be the way that the running mean has gone, and move it within a bound; return the trials and the result."""
    model = collect(make(share=True))
    layers, tried = moving(model).layers, []
    (norm,) = norms(model.policy)
    assert norm.running_mean is not None
    start = norm.running_mean.clone()
    refresh_running_statistics(model.interface, layers, batch_of(model))
    whole = norm.running_mean - start
    norm.running_mean.copy_(start)

    def evaluate(max_kl: float) -> Trial:
        assert max_kl == limit
        assert norm.running_mean is not None
        tried.append(((norm.running_mean - start).norm() / whole.norm()).item())
        return Trial(0.0, tried[-1])

    kl = refresh_within_bound(model.interface, layers, batch_of(model), evaluate, limit)
    return tried, kl, (norm.running_mean - start) / whole


@pytest.mark.parametrize(("limit", "shares"), [(2.0, [1.0]), (0.6, [1.0, 0.5]), (0.2, [1.0, 0.5, 0.25, 0.125])])
def test_statistics_move_as_far_as_the_bound_allows(limit: float, shares: list[float]) -> None:
    tried, kl, moved = shares_that_pass(limit)
    assert tried == pytest.approx(shares, rel=1e-4)
    assert kl == pytest.approx(shares[-1], rel=1e-4)
    th.testing.assert_close(moved, th.full_like(moved, shares[-1]), rtol=1e-3, atol=1e-4)


def test_statistics_that_fit_no_bound_stay() -> None:
    tried, kl, moved = shares_that_pass(1e-9)
    assert len(tried) == 5
    assert kl is None
    assert not moved.any()


def outcomes(model: TRPO, *steps: int) -> list[Outcome]:
    """Learn several times and return the outcomes of all updates."""
    found: list[Outcome] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if model.last_step is not None:
                found.append(model.last_step.outcome)

    for n in steps:
        model.last_step = None
        report = model.learn(n, callback=Look(), reset_num_timesteps=False).last_step
        assert report is not None
        found.append(report.outcome)
    return found


def image_model(n_images: int) -> TRPO:
    kwargs = {"features_extractor_kwargs": {"n_images": n_images}}
    settings: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0, "n_critic_updates": 1}
    return TRPO("PaperCnnPolicy", RandomEnv(IMAGE), policy_kwargs=kwargs, **settings)


def test_the_first_rollouts_gather_images_and_fit_the_critic() -> None:
    model = image_model(n_images=40)
    actor = [p.clone() for p in model.policy.action_net.parameters()]
    critic = model.policy.value_net.weight.clone()
    assert outcomes(model, 16 * 50)[:5] == [Outcome.GATHERING] * 3 + [Outcome.ACCEPTED] * 2
    assert not any(th.equal(p, q) for p, q in zip(model.policy.action_net.parameters(), actor, strict=True))
    assert not th.equal(model.policy.value_net.weight, critic)
    assert model.policy.features_extractor.get_submodule("normalization").get_buffer("n_seen").item() == 48


def test_gathering_takes_a_tenth_of_the_budget_at_most() -> None:
    assert outcomes(image_model(n_images=10_000), 16 * 20)[:3] == [Outcome.GATHERING] * 2 + [Outcome.ACCEPTED]


def test_a_short_budget_trains_all_the_same() -> None:
    assert outcomes(image_model(n_images=10_000), 16, 16, 32) == [Outcome.ACCEPTED] * 4


@pytest.mark.parametrize(("n_images", "shares"), [(10_000, [0.5] * 4), (32, [1.0] * 4), (64, [0.5, 0.5, 1.0, 1.0])])
def test_after_a_tenth_of_the_budget_the_statistics_move_beside_the_steps(
    n_images: int, shares: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []
    settings = TRPO._step_settings

    def remember(model: TRPO, max_kl: float) -> Any:
        bounds.append(max_kl / model._scheduled("target_kl"))
        return settings(model, max_kl)

    monkeypatch.setattr(TRPO, "_step_settings", remember)
    model = image_model(n_images)
    model.target_kl, model.scale_target_kl = 1.0, False  # statistics of few images move far
    found = outcomes(model, 16 * 20)
    assert found[:2] == [Outcome.GATHERING] * 2
    assert bounds[:4] == shares
    seen = model.policy.features_extractor.get_submodule("normalization").get_buffer("n_seen").item()
    assert seen == 16 * 20 if n_images == 10_000 else seen == n_images
    assert model.last_step is not None
    assert model.last_step.kl <= 1.0


def test_statistics_stay_at_a_bound_of_zero() -> None:
    model = make(target_kl=lambda _: 0.0)  # type: ignore[arg-type]
    model.learn(64)
    assert all(not norm.running_mean.any() for norm in norms(model.policy) if norm.running_mean is not None)

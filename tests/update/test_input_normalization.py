"""The update does not depend on the units of the observations, and the policy stays a plain function of them."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.distributions import kl_divergence

from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.report import Outcome, Trial
from sb3_trpo.update.input_normalization import (
    Coordinates,
    FirstLayers,
    StandardizedInputs,
    begin_standardized,
    first_layers,
)
from sb3_trpo.update.moments import RunningMoments
from tests.helpers import OwnBuffer, batch_of, collect, plain
from tests.toy_envs import OBSERVATIONS, RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0, "device": "cpu", "normalize_observations": True}
MEAN, STD = th.tensor([3.0, -2.0, 0.5], dtype=th.float64), th.tensor([2.0, 0.25, 8.0], dtype=th.float64)
INPUTS = StandardizedInputs(MEAN, STD)


class OtherUnits(gym.ObservationWrapper[Any, Any, Any]):
    """Gives observations in other units."""

    def __init__(self, factors: list[float], shifts: list[float]) -> None:
        super().__init__(RandomEnv())
        self.factors, self.shifts = np.array(factors, np.float32), np.array(shifts, np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def observation(self, observation: Any) -> Any:
        return observation * self.factors + self.shifts


def test_coordinates_are_those_of_standardised_inputs() -> None:
    layer, x = nn.Linear(3, 4).double(), th.randn(9, 3, dtype=th.float64)
    before, z = layer(x).detach(), (x - MEAN) / STD
    with INPUTS.within(layer):
        th.testing.assert_close(layer(z), before)
    th.testing.assert_close(layer(x), before)


def test_gradient_and_step_belong_together() -> None:
    other, layer = nn.Parameter(th.randn(2, dtype=th.float64)), nn.Linear(3, 4).double()
    parameters = [other, layer.weight, layer.bias]
    coordinates = Coordinates(INPUTS, layer, parameters)
    x = th.randn(9, 3, dtype=th.float64)

    def loss(inputs: th.Tensor) -> th.Tensor:
        features: th.Tensor = layer(inputs).tanh()
        return features.sum() * other[0] + other[1] ** 2

    gradient = flatten(th.autograd.grad(loss(x), parameters))
    with INPUTS.within(layer):
        expected = flatten(th.autograd.grad(loss((x - MEAN) / STD), parameters))
    th.testing.assert_close(coordinates.pull_back(gradient), expected)
    step = th.randn(len(gradient), dtype=th.float64)
    th.testing.assert_close(th.dot(step, expected), th.dot(coordinates.to_parameters(step), gradient))


def outputs(model: TRPO, x: np.ndarray) -> th.Tensor:
    with th.no_grad():
        distribution: Any = model.policy.get_distribution(th.from_numpy(x)).distribution
        return th.cat([distribution.mean, model.policy.predict_values(th.from_numpy(x))], dim=1)


def train_in_units(factors: list[float], shifts: list[float], normalize: bool) -> th.Tensor:
    settings = {**SETTINGS, "normalize_observations": normalize, "cg_max_steps": 40, "cg_tol": 0.0, "n_critic_updates": 2}
    model = TRPO("MlpPolicy", OtherUnits(factors, shifts), policy_kwargs={"net_arch": [8]}, **settings)
    for name in ("action_net.weight", "value_net.weight"):  # the first rollout must not tell the units
        nn.init.zeros_(model.policy.get_parameter(name))
    model.learn(64 * 11)
    x = np.linspace(-1.0, 1.0, 15, dtype=np.float32).reshape(5, 3)
    return outputs(model, x * np.array(factors, np.float32) + np.array(shifts, np.float32))


def test_units_of_the_observations_do_not_matter() -> None:
    units = ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]), ([0.5, 4.0, 16.0], [3.0, -8.0, 1.0])
    first, second = (train_in_units(*unit, normalize=True) for unit in units)
    without = [train_in_units(*unit, normalize=False) for unit in units]
    change = (first - second).abs().max()
    assert change < 0.1 * (without[0] - without[1]).abs().max()


class Bound(BaseCallback):
    """Measures from outside what every update does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Outcome, float, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.before = copy.deepcopy(self.model.policy)
        self.states = th.from_numpy(self.model.rollout_buffer.observations.reshape(-1, 3))  # type: ignore[attr-defined]

    def _on_rollout_start(self) -> None:
        model: Any = self.model
        if model.last_step is None:
            return
        with th.no_grad():
            policies: list[Any] = [self.before, self.model.policy]
            old, new = (p.get_distribution(self.states).distribution for p in policies)
            kl = kl_divergence(old, new).sum(dim=1).mean().item()
        self.found.append((model.last_step.outcome, model.last_step.kl, kl))


@pytest.mark.parametrize("shifts", [[0.0, 0.0, 0.0], [100.0, -30.0, 0.0]])
def test_the_bound_holds_and_the_logged_kl_is_the_policys(shifts: list[float]) -> None:
    seen = Bound()
    model = TRPO("MlpPolicy", OtherUnits([10.0, 0.1, 1.0], shifts), **SETTINGS)
    model.learn(64 * 12, callback=seen)
    assert seen.found[0][0] is Outcome.GATHERING
    assert sum(outcome is Outcome.ACCEPTED for outcome, *_ in seen.found) > 8
    for _, logged, measured in seen.found:
        assert measured <= 0.03 * (1.0 + 1e-3)
        assert logged == pytest.approx(measured, rel=0.02, abs=1e-5)


def test_a_short_budget_takes_steps_at_once() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    assert model.last_step is not None
    assert model.last_step.accepted


def test_the_first_weights_read_standardised_inputs() -> None:
    model = collect(TRPO("MlpPolicy", OtherUnits([100.0, 0.1, 1.0], [50.0, 0.0, 0.0]), **SETTINGS))
    layer = first_layers(plain(model.policy))
    assert isinstance(layer, FirstLayers)
    before = layer.actor.weight.detach().clone()
    model._total_timesteps = 6400
    model.train()
    expected = before.double() / model.observation_moments.std
    th.testing.assert_close(layer.actor.weight.double(), expected, rtol=1e-5, atol=1e-6)
    # the next update goes on from there: weights that were trained are never replaced
    inputs = model._observe_inputs(PlainPolicy.of(model.policy), batch_of(model))
    assert inputs is not None
    assert not inputs.new


def test_actor_that_would_change_too_much_is_left() -> None:
    actor = nn.Linear(3, 4)
    layers = FirstLayers(actor, nn.Linear(3, 4))
    before = [p.detach().clone() for p in actor.parameters()]
    assert begin_standardized(layers, INPUTS, lambda _: Trial(0.0, 0.5), 0.02) is None
    assert all(map(th.equal, actor.parameters(), before))
    assert begin_standardized(layers, INPUTS, lambda _: Trial(0.0, 0.01), 0.02) == 0.01
    assert not th.equal(layers.actor.weight, before[0])


@pytest.mark.parametrize(
    ("policy", "space", "kwargs", "reason"),
    [
        ("MlpPolicy", OBSERVATIONS["discrete"], {}, "the observations are Discrete"),
        ("MlpPolicy", OBSERVATIONS["multi_binary"], {}, "the observations are MultiBinary"),
        ("CnnPolicy", OBSERVATIONS["image"], {}, "the features extractor is a NormalizedCNN"),
        ("MultiInputPolicy", OBSERVATIONS["dict"], {}, "the policy is a MultiInputPolicy"),
        ("MlpPolicy", OBSERVATIONS["vector"], {"rollout_buffer_class": OwnBuffer}, "the rollout buffer makes its own"),
    ],
)
def test_where_it_does_not_apply(policy: str, space: Any, kwargs: Any, reason: str, capsys: Any) -> None:
    model = TRPO(policy, RandomEnv(space), verbose=1, **SETTINGS, **kwargs).learn(64)
    assert model.observation_moments.n_rollouts == 0
    assert f"Observations are not normalised: {reason}" in capsys.readouterr().out


def test_frozen_first_layers_are_left() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS)
    model.policy.get_parameter("mlp_extractor.policy_net.0.weight").requires_grad_(False)
    assert first_layers(plain(model.policy)) == Reason("the first layer of the actor is frozen")
    assert model.learn(64).observation_moments.n_rollouts == 0


def test_a_network_without_hidden_layers() -> None:
    both: dict[str, Any] = {**SETTINGS, "normalize_returns": True, "policy_kwargs": {"net_arch": []}}
    model = TRPO("MlpPolicy", OtherUnits([10.0, 0.1, 1.0], [5.0, 0.0, 0.0]), **both).learn(64 * 12)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert np.isfinite(model.logger.name_to_value["train/value_loss"])


def test_saved_models_go_on_and_others_read_them(tmp_path: Path) -> None:
    env = OtherUnits([10.0, 0.1, 1.0], [5.0, 0.0, 0.0])
    model = TRPO("MlpPolicy", env, normalize_returns=True, **SETTINGS).learn(64 * 12)
    model.save(tmp_path / "model.zip")
    loaded = TRPO.load(tmp_path / "model.zip", env)
    for mine, theirs in (
        (model.observation_moments, loaded.observation_moments),
        (model.return_moments, loaded.return_moments),
    ):
        assert isinstance(theirs, RunningMoments)
        assert mine.n_rollouts == theirs.n_rollouts
        assert th.equal(mine.mean, theirs.mean)
        assert th.equal(mine.var, theirs.var)
    x = env.observation_space.sample()
    contrib = sb3_contrib.TRPO.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(contrib.predict(x, deterministic=True)[0], model.predict(x, deterministic=True)[0])
    loaded.learn(64)
    assert loaded.last_step is not None
    assert loaded.last_step.accepted


def test_models_trained_without_go_on_without(tmp_path: Path) -> None:
    sb3_contrib.TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).save(tmp_path / "contrib.zip")
    with pytest.warns(UserWarning, match="saved by sb3-contrib"):
        contrib = TRPO.load(tmp_path / "contrib.zip")
    old = TRPO.load(Path(__file__).parents[1] / "saving" / "models" / "pendulum_clipped.zip")
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16)
    for model in (contrib, old, TRPO.from_ppo(ppo, batch_size=16)):
        assert model.normalize_observations is False
        assert model.normalize_returns is False

"""The scale of rewards does not matter, and no value changes with the unit of the targets."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import RewardWrapper
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.update.moments import RunningMoments
from sb3_trpo.update.target_normalization import (
    TargetScale,
    normalized_output,
    observe_targets,
    output_layer,
    target_scale,
)
from tests.helpers import OwnBuffer, make_policy
from tests.toy_envs import IMAGE, OBSERVATIONS, VECTOR, RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0, "device": "cpu"}


class Scaled(RewardWrapper[Any, Any]):
    """Multiplies rewards."""

    factor = 1.0

    def reward(self, reward: Any) -> float:
        return self.factor * float(np.float32(reward))


def train(factor: float, normalize: bool, policy: str = "MlpPolicy", space: Any = VECTOR, **kwargs: Any) -> TRPO:
    env = Scaled(RandomEnv(space))
    env.factor = factor
    settings = {**SETTINGS, **kwargs}
    model = TRPO(policy, env, normalize_returns=normalize, **settings)
    nn.init.zeros_(model.policy.get_parameter("value_net.weight"))
    return model.learn(256)


CASES: dict[str, dict[str, Any]] = {
    "by hand": {},
    "by autograd": {"policy_kwargs": {"activation_fn": nn.GELU}},
    "own buffer": {"rollout_buffer_class": OwnBuffer},
    "inputs": {"normalize_observations": True},
    "images": {"policy": "CnnPolicy", "space": IMAGE, "policy_kwargs": {"features_extractor_kwargs": {"n_images": 0}}},
    "dict": {"policy": "MultiInputPolicy", "space": OBSERVATIONS["dict"]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_scale_of_rewards_changes_no_bit_of_the_policy(factor: float, case: str) -> None:
    plain, scaled = train(1.0, True, **CASES[case]), train(factor, True, **CASES[case])
    assert plain.last_step == scaled.last_step
    for name, value in plain.policy.state_dict().items():
        expected = value * factor if name.startswith("value_net") else value
        assert th.equal(scaled.policy.state_dict()[name], expected), name


def test_without_it_the_scale_matters() -> None:
    assert train(1.0, False).last_step != train(2.0**10, False).last_step


@pytest.mark.parametrize("scale", [TargetScale(), TargetScale(3.0, 0.25), TargetScale(-1e4, 50.0)])
def test_values_change_within_the_context_only(scale: TargetScale) -> None:
    layer, features = nn.Linear(5, 1), th.randn(7, 5)
    with th.no_grad():
        before = layer(features)
        with normalized_output(layer, scale):
            th.testing.assert_close(layer(features), scale.normalized(before), rtol=1e-4, atol=1e-5)
        th.testing.assert_close(layer(features), before, rtol=1e-5, atol=1e-6 * abs(scale.mean) + 1e-6)


def test_an_error_restores_the_values() -> None:
    layer = nn.Linear(5, 1)
    before = layer.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), normalized_output(layer, TargetScale(1.0, 4.0)):
        raise ZeroDivisionError
    assert th.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("targets", "scale"),
    [([1.0, 3.0], (2.0, 1.0)), ([5.0, 5.0], (5.0, 5.0)), ([0.0, 0.0], (0.0, 1.0)), ([1e6, 1e6 + 0.01], (1e6, 1e6))],
)
def test_unit_of_targets(targets: list[float], scale: tuple[float, float]) -> None:
    moments = RunningMoments()
    moments.update(th.tensor(targets, dtype=th.float64))
    assert target_scale(moments) == pytest.approx(scale, rel=1e-6)


def test_the_unit_follows_the_returns() -> None:
    moments = RunningMoments()
    for i in range(200):
        scale = observe_targets(moments, th.tensor([i - 1.0, i + 1.0]))
    assert scale.mean == pytest.approx(199.0 - 9.0, abs=0.1)


def test_first_values_are_zero_and_loss_has_the_unit_of_the_rewards() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), normalize_returns=True, **SETTINGS)
    assert not model.policy.get_parameter("value_net.weight").any()
    losses = [train(factor, True).logger.name_to_value["train/value_loss"] for factor in (1.0, 4.0)]
    assert losses[1] == pytest.approx(16.0 * losses[0], rel=1e-6)


class CustomValues(ActorCriticPolicy):
    """Computes values in a custom way."""

    def predict_values(self, obs: Any) -> th.Tensor:
        return 2.0 * super().predict_values(obs)


def test_layers_that_are_left_alone() -> None:
    assert isinstance(output_layer(PolicyInterface(make_policy())), nn.Linear)
    frozen, hooked, sequential = make_policy(), make_policy(), make_policy()
    frozen.get_parameter("value_net.weight").requires_grad_(False)
    hooked.value_net.register_forward_hook(lambda *_: None)
    sequential.value_net = nn.Sequential(nn.Linear(4, 1))  # type: ignore[assignment]
    for policy, reason in (
        (make_policy(policy_class=CustomValues), "the values are computed in a custom way"),
        (frozen, "the critic's last layer is frozen"),
        (hooked, "the critic's last layer is altered"),
        (sequential, "the critic ends with a Sequential"),
    ):
        found = output_layer(PolicyInterface(policy))
        assert isinstance(found, Reason)
        assert found == reason

"""Both ways to differentiate the actor agree, and the one without autograd serves only where it is exact."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.batch.batch import Batch
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.flat import flatten
from tests.helpers import actor_of, batch_of, reached
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv


class OwnCNN(NatureCNN):
    """A subclass, which may compute anything."""


def make(actions: str, observations: str = "vector", n_steps: int = 32, **policy_kwargs: Any) -> tuple[TRPO, Batch]:
    env = RandomEnv(OBSERVATIONS[observations], ACTIONS[actions])
    model = TRPO("MlpPolicy", env, n_steps=n_steps, batch_size=n_steps, seed=0, policy_kwargs=policy_kwargs).learn(n_steps)
    with th.no_grad():
        for parameter in model.policy.parameters():  # far from the near-zero initialisation of the last layer
            parameter.add_(0.3 * th.randn_like(parameter))
    return model, batch_of(model)


def both(model: TRPO) -> tuple[HandActor, AutogradActor]:
    network = actor_of(model.policy)
    assert isinstance(network, HandActor)
    return network, AutogradActor(PolicyInterface(model.policy))


# 1,100 states are more than one block of rows
@pytest.mark.parametrize("n_steps", [32, 1100])
@pytest.mark.parametrize("actions", ACTIONS)
def test_both_networks_agree(actions: str, n_steps: int) -> None:
    model, batch = make(actions, n_steps=n_steps, net_arch=[16, 8])
    parameters = reached(model.policy, batch)
    mlp, graph = both(model)

    family = distribution_family(mlp.distribution(batch.states))
    ours, theirs = (
        [part.clone() for part in family.parameters(network.distribution(batch.states), batch.actions)]
        for network in (mlp, graph)
    )
    for mine, other in zip(ours, theirs, strict=True):
        th.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)

    def objective(_: Batch, distribution: Distribution) -> th.Tensor:
        entropy = distribution.entropy()
        assert entropy is not None
        return distribution.log_prob(batch.actions) * batch.advantages + 0.1 * entropy

    gradients = [network.gradient(objective, batch, parameters) / n_steps for network in (mlp, graph)]
    th.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    vector = th.randn(sum(parameter.numel() for parameter in parameters))
    products = [network.linearise(batch, parameters).product(vector) / n_steps for network in (mlp, graph)]
    th.testing.assert_close(*products, atol=1e-4, rtol=1e-3)


def test_both_networks_agree_on_beta_actions() -> None:
    env = RandomEnv(OBSERVATIONS["vector"], ACTIONS["box"])
    model = TRPO("BetaMlpPolicy", env, n_steps=64, batch_size=64, seed=0).learn(64)
    batch = batch_of(model)
    parameters = reached(model.policy, batch)
    networks = both(model)

    def objective(_: Batch, distribution: Distribution) -> th.Tensor:
        entropy = distribution.entropy()
        assert entropy is not None
        return distribution.log_prob(batch.actions) * batch.advantages + 0.1 * entropy

    th.testing.assert_close(*(network.gradient(objective, batch, parameters) / 64 for network in networks))
    vector = th.randn(sum(parameter.numel() for parameter in parameters))
    products = [network.linearise(batch, parameters).product(vector) / 64 for network in networks]
    th.testing.assert_close(*products, atol=1e-5, rtol=1e-4)


# 160 images are more than one block of rows
@pytest.mark.parametrize("extractor", [NatureCNN, NormalizedCNN, PaperCNN])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_both_networks_agree_on_images(extractor: type[nn.Module], share: bool, scale: bool) -> None:
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    kwargs = {"features_extractor_class": extractor, "share_features_extractor": share, "net_arch": [9]}
    kwargs["normalize_images"] = scale  # without it, raw bytes are read
    model = TRPO("CnnPolicy", env, n_steps=160, batch_size=160, seed=0, policy_kwargs=kwargs).learn(160)
    batch = batch_of(model)
    parameters = reached(model.policy, batch)
    plain, graph = both(model)
    logits = [network.distribution(batch.states).distribution.logits.clone() for network in (plain, graph)]  # type: ignore[union-attr]
    th.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)

    def objective(_: Batch, distribution: Distribution) -> th.Tensor:
        return distribution.log_prob(batch.actions) * batch.advantages

    gradients = [network.gradient(objective, batch, parameters) / 160 for network in (plain, graph)]
    assert_close_but_for_a_switch(gradients, atol=1e-5 if scale else 1e-3, rtol=1e-4)
    vector = th.randn(sum(parameter.numel() for parameter in parameters))
    products = [network.linearise(batch, parameters).product(vector) / 160 for network in (plain, graph)]
    assert_close_but_for_a_switch(products, atol=1e-4 if scale else 1e-2, rtol=1e-3)


def assert_close_but_for_a_switch(pair: list[th.Tensor], atol: float, rtol: float) -> None:
    """Compare two vectors; rounding may switch one ReLU in one of the states, which changes a few elements a little."""
    actual, expected = pair
    assert th.isclose(actual, expected, atol=atol, rtol=rtol).double().mean() > 0.9
    assert th.linalg.norm(actual - expected) < 2e-3 * th.linalg.norm(expected)


@pytest.mark.parametrize("observations", sorted(OBSERVATIONS.keys() - {"image", "dict"}))
def test_both_networks_agree_on_every_observation(observations: str) -> None:
    model, batch = make("box", observations)
    mlp, graph = both(model)
    modes = [network.distribution(batch.states).mode() for network in (mlp, graph)]
    th.testing.assert_close(*modes, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [["log_std"], ["mlp_extractor.policy_net.0.weight", "action_net.bias"]])
def test_frozen_parameters_are_left_out(frozen: list[str]) -> None:
    model, batch = make("box")
    for name in frozen:
        model.policy.get_parameter(name).requires_grad_(False)
    parameters = reached(model.policy, batch)
    vector = th.randn(flatten(parameters).shape)
    products = [network.linearise(batch, parameters).product(vector) / len(batch) for network in both(model)]
    th.testing.assert_close(*products, atol=1e-4, rtol=1e-3)


def test_products_do_not_change_the_policy_nor_the_batch() -> None:
    model, batch = make("box")
    parameters = reached(model.policy, batch)
    assert isinstance(batch.states.observations, th.Tensor)
    before = flatten(parameters), batch.states.observations.clone()
    linearisation = both(model)[0].linearise(batch, parameters)
    vector = th.randn(flatten(parameters).shape)
    assert th.equal(linearisation.product(vector), linearisation.product(vector))
    assert th.equal(flatten(parameters), before[0])
    assert th.equal(batch.states.observations, before[1])


def test_an_operation_without_second_derivative_is_named() -> None:
    kwargs = {"activation_fn": nn.Hardsigmoid}
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8, policy_kwargs=kwargs, normalize_observations=False)
    before = flatten(list(model.policy.parameters()))
    with pytest.raises(ValueError, match=r"cannot be differentiated twice.*hardsigmoid"):
        model.learn(8)
    assert th.equal(flatten(list(model.policy.parameters())), before)


@pytest.mark.parametrize(
    ("policy", "observations", "kwargs"),
    [
        ("CnnPolicy", "image", {"policy_kwargs": {"features_extractor_class": OwnCNN}}),
        ("CnnPolicy", "image", {"policy_kwargs": {"net_arch": [4], "activation_fn": nn.GELU}}),
        ("MultiInputPolicy", "dict", {}),
        ("MlpPolicy", "vector", {"use_sde": True}),
        ("MlpPolicy", "vector", {"policy_kwargs": {"activation_fn": nn.SiLU}}),  # its slope needs the input
        ("MlpPolicy", "vector", {"policy_kwargs": {"activation_fn": nn.GELU}}),
    ],
)
def test_other_policies_are_left_to_autograd(policy: str, observations: str, kwargs: dict[str, Any]) -> None:
    model = TRPO(policy, RandomEnv(OBSERVATIONS[observations]), n_steps=8, batch_size=8, **kwargs)
    assert isinstance(actor_of(model.policy), AutogradActor)

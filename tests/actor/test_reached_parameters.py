"""The actor's parameters are those that the action distribution depends on."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.actor.chunk_size import automatic_chunk_size
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.actor.reached_parameters import check_repeatable
from sb3_trpo.policies.interface import PolicyInterface
from tests.helpers import ACTORS, DoubleEncoder, DoubleFlatten, Experts, generator_states, make_batch, make_policy, reached
from tests.toy_envs import RandomEnv

HEAD = {"action_net.weight", "action_net.bias"}
HIDDEN = {"mlp_extractor.policy_net.0.weight", "mlp_extractor.policy_net.0.bias"}
ENCODER = {"features_extractor.encoder.0.weight", "features_extractor.encoder.0.bias"}


def found(policy: ActorCriticPolicy) -> set[str]:
    """Names of the actor's parameters."""
    ids = {id(parameter) for parameter in reached(policy, make_batch(policy))}
    return {name for name, parameter in policy.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize("actor", ACTORS)
def test_every_distribution_finds_head_hidden_layers_and_standard_deviation(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    assert found(policy) == HEAD | HIDDEN | ({"log_std"} if hasattr(policy, "log_std") else set())


def test_a_shared_extractor_belongs_to_the_actor() -> None:
    policy = make_policy(features_extractor_class=DoubleEncoder)
    assert found(policy) == HEAD | HIDDEN | ENCODER | {"log_std"}


def test_the_critics_extractor_does_not_belong_to_the_actor() -> None:
    policy = make_policy(features_extractor_class=DoubleEncoder, share_features_extractor=False)
    assert any(name.startswith("vf_features_extractor.encoder") for name, _ in policy.named_parameters(remove_duplicate=False))
    assert found(policy) == HEAD | HIDDEN | ENCODER | {"log_std"}


class Misnamed(ActorCriticPolicy):
    """Its names mislead: a ``value_encoder`` feeds the actor, a ``policy_head`` does not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.value_encoder = nn.Linear(4, 4)
        self.policy_head = nn.Linear(4, 4)

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return super()._get_action_dist_from_latent(latent_pi + self.value_encoder(latent_pi))


def test_names_of_parameters_do_not_matter() -> None:
    policy = make_policy(policy_class=Misnamed)
    assert found(policy) == HEAD | HIDDEN | {"log_std", "value_encoder.weight", "value_encoder.bias"}


@pytest.mark.parametrize("frozen", [HIDDEN, HEAD, {"log_std"}, HEAD | HIDDEN])
def test_frozen_parameters_are_left_out(frozen: set[str]) -> None:
    policy = make_policy()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(name not in frozen)
    assert found(policy) == (HEAD | HIDDEN | {"log_std"}) - frozen


def test_nothing_is_found_where_the_whole_actor_is_frozen() -> None:
    policy = make_policy()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("value" in name)
    assert found(policy) == set()
    policy.requires_grad_(False)
    batch = make_batch(policy)
    assert reached(policy, batch) == []
    assert automatic_chunk_size(PolicyInterface(policy), batch) >= 1


def test_a_disconnected_parameter_is_left_out() -> None:
    policy = make_policy()
    policy.register_parameter("idle", nn.Parameter(th.zeros(3, dtype=th.float64)))
    assert "idle" not in found(policy)


@pytest.mark.parametrize("chunk_size", [100, 3])
def test_a_layer_that_only_the_last_state_goes_through_is_found(chunk_size: int) -> None:
    policy = make_policy(features_extractor_class=Experts)
    batch = make_batch(policy)
    assert isinstance(batch.states.observations, th.Tensor)
    batch.states.observations[:, 0] = th.tensor([1.0] * 6 + [-1.0])
    parameters = reached(policy, batch, chunk_size)
    assert all(any(p is parameter for p in parameters) for parameter in policy.features_extractor.parameters())


def test_the_order_is_the_policys() -> None:
    policy = make_policy(features_extractor_class=DoubleEncoder)
    positions = {id(parameter): position for position, parameter in enumerate(policy.parameters())}
    order = [positions[id(parameter)] for parameter in reached(policy, make_batch(policy))]
    assert order == sorted(order)


def test_the_probe_finds_them_without_gradient_mode_and_leaves_no_trace() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with th.no_grad():
        assert len(reached(policy, batch)) == 5
    assert all(th.equal(policy.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_one_state_is_enough() -> None:
    policy = make_policy()
    assert len(reached(policy, make_batch(policy, 1))) == 5


class Noisy(DoubleFlatten):
    """Adds noise to its features, in evaluation mode too."""

    scale = 0.1

    def forward(self, observations: th.Tensor) -> th.Tensor:
        rows = super().forward(observations)
        return rows + self.scale * th.randn_like(rows)


class Dropped(DoubleFlatten):
    """Drops features, in evaluation mode too."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return nn.functional.dropout(super().forward(observations), 0.2, training=True)


class Rounded(Noisy):
    """Computes with rounding errors that vary."""

    scale = 1e-7


def check(policy: ActorCriticPolicy) -> None:
    check_repeatable(PolicyInterface(policy), PlainPolicy.of(policy), make_batch(policy, 20))


@pytest.mark.parametrize("extractor", [Noisy, Dropped])
@pytest.mark.parametrize("actor", ["gaussian", "gsde", "categorical", "student_t"])
def test_an_actor_that_depends_on_chance_is_refused(actor: str, extractor: type[DoubleFlatten]) -> None:
    with pytest.raises(ValueError, match="different action distributions for the same states in evaluation mode"):
        check(make_policy(features_extractor_class=extractor, **ACTORS[actor]))


@pytest.mark.parametrize("actor", ACTORS)
def test_other_actors_pass_and_no_number_is_drawn(actor: str) -> None:
    for extractor in (DoubleFlatten, Rounded):
        policy = make_policy(features_extractor_class=extractor, **ACTORS[actor])
        batch = make_batch(policy, 20)
        before = generator_states()
        check_repeatable(PolicyInterface(policy), PlainPolicy.of(policy), batch)
        assert generator_states() == before


def test_a_distribution_that_is_not_finite_is_left_to_the_step() -> None:
    policy = make_policy(features_extractor_class=DoubleFlatten, **ACTORS["gaussian"])
    batch = make_batch(policy)
    with th.no_grad():
        policy.get_parameter("action_net.bias").fill_(th.nan)
    plain = PlainPolicy.of(policy)
    assert isinstance(plain, Reason)
    check_repeatable(PolicyInterface(policy), plain, batch)


def test_training_an_actor_that_depends_on_chance_moves_nothing() -> None:
    class NoisyFloats(FlattenExtractor):
        def forward(self, observations: th.Tensor) -> th.Tensor:
            return super().forward(observations) + 0.1 * th.randn(len(observations), 3)

    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8, policy_kwargs={"features_extractor_class": NoisyFloats})
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match="The policy was not updated"):
        model.learn(16)
    assert all(th.equal(*pair) for pair in zip(before, model.policy.parameters(), strict=True))

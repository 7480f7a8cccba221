"""The actor's parameters are those that the action distribution depends on, and memory bounds the chunk."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.actor.probe import GRAPH_BYTES, ActorProbe, probe_actor
from sb3_trpo.batch.batch import Batch
from tests.helpers import ACTORS, OBSERVATIONS, DoubleEncoder, Experts, make_batch, make_policy

HEAD = {"action_net.weight", "action_net.bias"}
HIDDEN = {"mlp_extractor.policy_net.0.weight", "mlp_extractor.policy_net.0.bias"}
ENCODER = {"features_extractor.encoder.0.weight", "features_extractor.encoder.0.bias"}


def found(policy: ActorCriticPolicy) -> set[str]:
    """Names of the actor's parameters."""
    reached = {id(parameter) for parameter in probe_actor(policy, make_batch(policy)).parameters}
    return {name for name, parameter in policy.named_parameters() if id(parameter) in reached}


@pytest.mark.parametrize("actor", ACTORS)
def test_every_distribution_finds_head_hidden_layers_and_standard_deviation(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    assert found(policy) == HEAD | HIDDEN | ({"log_std"} if hasattr(policy, "log_std") else set())


def test_a_shared_extractor_belongs_to_the_actor() -> None:
    policy = make_policy(features_extractor_class=DoubleEncoder)
    assert found(policy) == HEAD | HIDDEN | ENCODER | {"log_std"}


def test_the_critics_own_extractor_does_not() -> None:
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


def test_names_do_not_decide() -> None:
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
    probe = probe_actor(policy, make_batch(policy))
    assert probe.parameters == []
    assert probe.chunk_size() >= 1


def test_a_disconnected_parameter_is_left_out() -> None:
    policy = make_policy()
    policy.register_parameter("idle", nn.Parameter(th.zeros(3, dtype=th.float64)))
    assert "idle" not in found(policy)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_layer_that_only_the_last_state_goes_through_is_found(chunk_size: int | None) -> None:
    policy = make_policy(features_extractor_class=Experts)
    batch = make_batch(policy)
    assert isinstance(batch.observations, th.Tensor)
    batch.observations[:, 0] = th.tensor([1.0] * 6 + [-1.0])
    reached = probe_actor(policy, batch, chunk_size).parameters
    assert all(any(p is parameter for p in reached) for parameter in policy.features_extractor.parameters())


def test_the_order_is_the_policys() -> None:
    policy = make_policy(features_extractor_class=DoubleEncoder)
    positions = {id(parameter): position for position, parameter in enumerate(policy.parameters())}
    order = [positions[id(parameter)] for parameter in probe_actor(policy, make_batch(policy)).parameters]
    assert order == sorted(order)


def test_the_probe_finds_them_without_gradient_mode_and_leaves_no_trace() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with th.no_grad():
        assert len(probe_actor(policy, batch).parameters) == 5
    assert all(th.equal(policy.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_one_state_is_enough() -> None:
    policy = make_policy()
    assert len(probe_actor(policy, make_batch(policy, 1)).parameters) == 5


def plain_policy(net_arch: list[int], action_space: spaces.Space[Any] | None = None) -> ActorCriticPolicy:
    space = action_space or spaces.Box(-1.0, 1.0, (2,))
    policy = ActorCriticPolicy(OBSERVATIONS, space, lambda _: 1e-3, net_arch=net_arch)
    policy.set_training_mode(False)
    return policy


def bytes_per_state(policy: ActorCriticPolicy, n_states: int = 7) -> int:
    zeros = th.zeros(n_states)
    return probe_actor(policy, Batch(th.randn(n_states, 3), th.zeros(n_states, 2), zeros, zeros, zeros)).bytes_per_state


def test_memory_grows_with_the_activations_not_with_the_weights() -> None:
    narrow, wide, deep = (bytes_per_state(plain_policy(arch)) for arch in ([64], [512], [512, 512, 512]))
    # tanh keeps its output: four bytes a unit, and a little for the rest
    assert 4 * 64 <= narrow < 4 * 64 + 200
    assert 4 * 512 <= wide < 4 * 512 + 200
    assert 3 * 4 * 512 <= deep < 3 * 4 * 512 + 200


def test_memory_does_not_depend_on_the_number_of_states() -> None:
    policy = plain_policy([64])
    assert bytes_per_state(policy, 2) == bytes_per_state(policy, 100)


def test_frozen_weights_are_not_counted_as_memory_of_a_state() -> None:
    policy = plain_policy([512, 512])
    before = bytes_per_state(policy)
    for parameter in policy.mlp_extractor.policy_net[2].parameters():
        parameter.requires_grad_(False)
    assert bytes_per_state(policy) <= before


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, GRAPH_BYTES), (1, GRAPH_BYTES), (GRAPH_BYTES // 3, 3), (GRAPH_BYTES, 1), (GRAPH_BYTES + 1, 1), (2**60, 1)],
)
def test_a_chunk_holds_the_states_that_fit_and_at_least_one(size: int, expected: int) -> None:
    assert ActorProbe([], size, GRAPH_BYTES).chunk_size() == expected

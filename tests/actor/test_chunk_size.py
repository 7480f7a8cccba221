"""Memory bounds the chunk."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.actor import chunk_size
from sb3_trpo.actor.chunk_size import GRAPH_BYTES, automatic_chunk_size
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import PolicyInterface
from tests.helpers import OBSERVATIONS, make_batch, make_policy


def plain_policy(net_arch: list[int], action_space: spaces.Space[Any] | None = None) -> ActorCriticPolicy:
    space = action_space or spaces.Box(-1.0, 1.0, (2,))
    policy = ActorCriticPolicy(OBSERVATIONS, space, lambda _: 1e-3, net_arch=net_arch)
    policy.set_training_mode(False)
    return policy


def bytes_per_state(policy: ActorCriticPolicy, n_states: int = 7) -> int:
    zeros = th.zeros(n_states)
    batch = Batch(States(th.randn(n_states, 3)), th.zeros(n_states, 2), zeros, zeros, zeros)
    return chunk_size.bytes_per_state(PolicyInterface(policy), batch)


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
def test_a_chunk_holds_the_states_that_fit_and_at_least_one(size: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_size, "bytes_per_state", lambda *_: size)
    policy = make_policy()
    assert automatic_chunk_size(PolicyInterface(policy), make_batch(policy)) == expected

"""One step without packed sequences is the step of the interface that trains, for every kind of memory."""

from dataclasses import replace

import pytest
import torch as th

from sb3_trpo.batch.states import States
from sb3_trpo.export.stepping import SteppingInterface, step_of, stepping
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.policies.sequences import n_memory_parts
from tests.helpers import OBSERVATIONS
from tests.recurrent_helpers import KINDS, make_policy, random_memory


@pytest.mark.parametrize("with_values", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_the_training(kind: str, with_values: bool) -> None:
    policy = make_policy(**KINDS[kind])
    starts = th.tensor([False, True, False, False])
    memory = random_memory(policy, 4) if with_values else random_memory(policy, 4)[: n_memory_parts(policy.lstm_actor)]
    observations = th.randn(4, *(OBSERVATIONS.shape or ()), generator=th.Generator().manual_seed(1), dtype=th.float64)
    states = States(observations, memory=memory, episode_starts=starts)
    interface = stepping(RecurrentInterface, policy)
    assert isinstance(interface, SteppingInterface)
    step = step_of(interface, states, with_values)

    begun = replace(states, memory=tuple(part * ~starts.view(-1, 1, 1) for part in memory))
    training = RecurrentInterface(policy)
    mode = training.distribution(begun).mode()
    th.testing.assert_close(step.distribution.mode(), mode)
    assert (step.values is not None) == with_values
    if step.values is not None:
        th.testing.assert_close(step.values, training.values(begun))
        training.act(begun)
        for found, expected in zip(step.memory, training.memory, strict=True):
            th.testing.assert_close(found, expected)
    assert len(step.memory) == len(memory)


def test_policies_without_memory_keep_their_interface() -> None:
    class Own(PolicyInterface):
        pass

    assert type(stepping(Own, make_policy())) is Own

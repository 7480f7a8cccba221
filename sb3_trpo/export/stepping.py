"""Calls a policy one step at a time, in operations that torch can trace for any size of the batch."""

from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.distributions import Distribution
from torch import nn

from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.policies.sequences import Memory, run_step


class Step(NamedTuple):
    """
    What a policy computes in B states.

    :param distribution: the action distribution
    :param values: the values, shape (B, 1); None: they were not asked for
    :param memory: the memory after the step, each tensor of shape (B, n_layers, hidden); empty without memory
    """

    distribution: Distribution
    values: th.Tensor | None
    memory: Memory


class SteppingInterface(RecurrentInterface):
    """
    Calls policies with memory, without packed sequences, which cannot be traced.

    :param policy: the policy
    """

    def step(self, states: States, with_values: bool) -> Step:
        """
        Take one step of actor and critic.

        :param states: B states, with the memory of the actor, and with that of the critic if it has its own and is asked
        :param with_values: whether to ask the critic
        :return: what they compute
        """
        with self._lent(states) as policy:
            distribution, latent, after = self._act_distribution(policy, self._actor_features(policy, states), states)
            if not with_values:
                return Step(distribution, None, after)
            latent_vf, after_vf = self._critic_latent(policy, self._critic_features(policy, states), states, latent)
            values = policy.value_net(policy.mlp_extractor.forward_critic(latent_vf))
            return Step(distribution, values, (*after, *after_vf))

    def _run(self, rnn: nn.RNNBase, features: th.Tensor, states: States) -> tuple[th.Tensor, Memory]:
        """Run a recurrent layer one step, from zeros where an episode begins."""
        assert states.episode_starts is not None
        begins = states.episode_starts.view(-1, 1, 1)
        return run_step(rnn, features, tuple(th.where(begins, 0.0, part) for part in self._memory_of(rnn, states)))


def stepping(interface_class: type[PolicyInterface], policy: Any) -> PolicyInterface:
    """
    Make the interface through which a policy is exported.

    :param interface_class: class of the interface through which it is trained
    :param policy: the policy
    :return: the interface
    :raises TypeError: if the policy has a memory that cannot be exported
    """
    if interface_class is RecurrentInterface:
        return SteppingInterface(policy)
    if issubclass(interface_class, RecurrentInterface):
        raise TypeError(f"a policy that is called through a custom {interface_class.__name__} cannot be exported")
    return interface_class(policy)


def step_of(interface: PolicyInterface, states: States, with_values: bool) -> Step:
    """
    Take one step of a policy, with memory or without.

    :param interface: made by :func:`stepping`
    :param states: B states
    :param with_values: whether to ask the critic
    :return: what the policy computes
    """
    if isinstance(interface, SteppingInterface):
        return interface.step(states, with_values)
    distribution = interface.distribution(states)
    return Step(distribution, interface.values(states) if with_values else None, ())

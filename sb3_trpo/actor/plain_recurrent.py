"""Recognises recurrent policies that can be evaluated and differentiated by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.actor.mlp import why_not_mlp
from sb3_trpo.actor.packing import Sequences
from sb3_trpo.actor.plain_policy import Layers, PlainPolicy, Reason, why_not_drawn
from sb3_trpo.actor.recurrent_network import RecurrentNetwork
from sb3_trpo.actor.rnn import why_not_rnn
from sb3_trpo.batch.states import States
from sb3_trpo.policies.recurrent import MlpLstmPolicy
from sb3_trpo.policies.sequences import n_memory_parts

T = TypeVar("T")


class PlainRecurrentPolicy(PlainPolicy):
    """
    A policy that computes exactly what its layers compute: the flat observation, a recurrent layer, then an MLP, for actor and
    critic.

    :param policy: the policy
    """

    classes = (MlpLstmPolicy,)

    @classmethod
    def of(cls, policy: ActorCriticPolicy) -> PlainRecurrentPolicy | Reason:
        """
        Recognise a plain recurrent policy.

        :param policy: any policy
        :return: the policy as a plain one; otherwise the first reason why it is not plain
        """
        plain = super().of(policy)
        if isinstance(plain, Reason):
            return plain
        assert isinstance(plain, PlainRecurrentPolicy)
        return plain

    @property
    def _recurrent(self) -> MlpLstmPolicy:
        assert isinstance(self.policy, MlpLstmPolicy)
        return self.policy

    @cached_property
    def actor(self) -> RecurrentNetwork | Reason:
        """Return the actor's network, or why it cannot be computed by hand."""
        policy = self._recurrent
        reason = why_not_drawn(policy)
        if reason is not None:
            return Reason(reason)
        return self._network(policy.lstm_actor, [*policy.mlp_extractor.policy_net, policy.action_net])

    @cached_property
    def critic(self) -> Layers | Reason:
        """Return the critic's network, or why it cannot be computed by hand; one without memory reads single observations."""
        rnn = self.critic_rnn
        return self.layers(self.critic_modules) if rnn is None else self._network(rnn, self.critic_modules)

    @property
    def critic_rnn(self) -> nn.RNNBase | None:
        """Return the recurrent module that the critic reads, its own or the actor's; None: it has no memory."""
        policy = self._recurrent
        return policy.lstm_actor if policy.shared_lstm else policy.lstm_critic

    @cached_property
    def critic_modules(self) -> list[nn.Module]:
        """Return the modules of the critic, in order, without a recurrent one."""
        policy = self._recurrent
        # two linear layers in a row, as in sb3-contrib
        first = [] if policy.critic is None else [policy.critic, nn.Identity()]
        return [*first, *policy.mlp_extractor.value_net, policy.value_net]

    def inputs(self, states: States, rows: int) -> Iterator[Sequences]:
        """
        Encode states as the actor's network reads them.

        :param states: B states
        :param rows: not used: sequences are not divided
        :return: all of them as one block
        """
        yield self.sequences(states)

    def outputs(self, states: States) -> np.ndarray:
        """
        Compute the actor's output.

        :param states: B states
        :return: shape (B, n_out)
        """
        assert isinstance(self.actor, RecurrentNetwork)
        with np.errstate(all="ignore"):  # like torch, whatever the user has set
            return self.actor(self.sequences(states))

    def sequences(self, states: States, of_critic: bool = False) -> Sequences:
        """
        Encode states for a network.

        :param states: B states in units
        :param of_critic: whether the critic reads them, with its memory
        :return: the sequences
        """
        assert isinstance(states.observations, th.Tensor)
        assert states.memory is not None
        memory = self.memory_of(tuple(part.numpy() for part in states.memory), of_critic)
        return Sequences(self.encode(states.observations.numpy()), states.unit_lengths.numpy(), memory)

    def memory_of(self, memory: tuple[T, ...], critic: bool) -> tuple[T, ...]:
        """
        Select the actor's or the critic's part of a memory.

        :param memory: the memory of states
        :param critic: whether to select the critic's part; a shared one is the actor's
        :return: that part
        """
        n = n_memory_parts(self._recurrent.lstm_actor)
        return memory[n:] if critic and not self._recurrent.shared_lstm else memory[:n]

    def _of_extractor_is_flat(self) -> bool:
        return not self._of_extractor(self.policy.features_extractor, [], None)[:-1]

    def _network(self, rnn: nn.RNNBase | None, head: Sequence[Any]) -> RecurrentNetwork | Reason:
        assert rnn is not None
        reason = why_not_rnn(rnn) or why_not_mlp(head) or _not_float32(rnn)
        if reason is None and not self._of_extractor_is_flat():
            reason = f"the {type(self.policy.features_extractor).__name__} has layers before the recurrent one"
        return RecurrentNetwork(rnn, head) if reason is None else Reason(reason)


def _not_float32(rnn: nn.RNNBase) -> str | None:
    dtypes = {parameter.dtype for parameter in rnn.parameters()}
    return None if dtypes == {th.float32} else "the recurrent layer is not float32"

"""The interface to recurrent policies, which keeps the memory of the training environments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.windows import cut_lengths, in_windows
from sb3_trpo.distributions.squashed import with_samples
from sb3_trpo.policies.interface import Acted, Obs, PolicyInterface, own_distribution
from sb3_trpo.policies.recurrent import MlpLstmPolicy
from sb3_trpo.policies.sequences import (
    Memory,
    RecurrentStates,
    RunSequences,
    first_weight,
    n_memory_parts,
    no_memory,
    run_sequences,
)


class RecurrentInterface(PolicyInterface):
    """
    Calls policies with memory.

    The memory of a state holds the actor's recurrent state, then the critic's if it has its own. :attr:`memory` is that of
    the training environments after their last step. It begins anew exactly where an episode begins.

    :param policy: the policy
    """

    distribution_methods = ("_get_action_dist_from_latent",)
    policy: MlpLstmPolicy

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__(policy)
        self.memory: Memory = ()
        self.first_memory: Memory = ()
        self._run_sequences: RunSequences = run_sequences

    @contextmanager
    def recurrence(self, run: RunSequences) -> Iterator[None]:
        """
        Run the recurrent layers in another way for a while.

        :param run: computes the same as :func:`~sb3_trpo.policies.sequences.run_sequences`
        """
        previous, self._run_sequences = self._run_sequences, run
        try:
            yield
        finally:
            self._run_sequences = previous

    def take_over(self, previous: PolicyInterface) -> None:
        """Continue with the memory of the environments, if that fits this policy's layers."""
        super().take_over(previous)
        if not isinstance(previous, RecurrentInterface):
            return
        expected = [part.shape[1:] for part in self._no_memory(1)]
        for name in ("memory", "first_memory"):
            memory: Memory = getattr(previous, name)
            if [part.shape[1:] for part in memory] == expected:
                setattr(self, name, tuple(part.to(self.policy.device) for part in memory))

    def get_state(self) -> dict[str, Any]:
        """Return the memory after the last step besides."""
        return {**super().get_state(), "memory": self.memory}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the memory after the last step besides."""
        super().set_state(state)
        self.memory = tuple(part.to(self.policy.device) for part in state["memory"])

    def present(self, observations: Obs, env: VecEnv, starts: np.ndarray) -> States:
        """Read the present states, with their memory."""
        states = super().present(observations, env, starts)
        begins = th.as_tensor(np.asarray(starts, dtype=bool), device=self.policy.device)
        return replace(states, memory=self.memory_before(begins), episode_starts=begins)

    def memory_before(self, begins: th.Tensor) -> Memory:
        """
        Compute the memory with which the environments take their next step.

        :param begins: whether an episode begins, shape (n_envs,)
        :return: zeros where one begins, otherwise the memory after the last step
        """
        fresh = self._no_memory(len(begins))
        device = fresh[0].device
        if [part.shape for part in self.memory] != [part.shape for part in fresh]:  # a new model, or other environments
            return fresh
        begins = begins.view(-1, 1, 1).to(device)
        kept = (part.to(device) for part in self.memory)
        return tuple(th.where(begins, *pair) for pair in zip(fresh, kept, strict=True))

    def _no_memory(self, n: int) -> Memory:
        return tuple(part for rnn in self._layers() for part in no_memory(rnn, n))

    def _layers(self) -> list[nn.RNNBase]:
        """Collect the recurrent layers: the actor's, then the critic's if it has its own."""
        return [rnn for rnn in (self.policy.lstm_actor, self.policy.lstm_critic) if rnn is not None]

    def terminal(self, observations: Obs, envs: Sequence[int]) -> States:
        """Read the states in which a time limit cut episodes off: the memory is that after the last step."""
        memory = tuple(part[list(envs)] for part in self.memory)
        return replace(super().terminal(observations, envs), memory=memory)

    def store(self, buffer: Any, step: int, states: States) -> None:
        """Store the memory before the first step; the update computes that of all others."""
        super().store(buffer, step, states)
        if step == 0:
            assert states.memory is not None
            self.first_memory = states.memory

    def state_fields(self, rollout: Any) -> dict[str, Any]:
        """Find the observations, and where episodes begin."""
        starts = rollout.episode_starts
        if rollout.generator_ready:  # `get` has sorted the other arrays by environment, and left this one as it was
            starts = rollout.swap_and_flatten(starts).flatten()
        return {**super().state_fields(rollout), "episode_starts": starts}

    def arrange(self, batch: Batch, n_envs: int) -> Batch:
        """Arrange a rollout in windows that end where an episode does."""
        return in_windows(super().arrange(batch, n_envs), n_envs, self.first_memory)

    def truncate(self, batch: Batch, longest: int, chunk_size: int) -> Batch:
        """
        Cut the windows of a rollout into pieces, each with the memory that the policy has there now.

        Gradients through time end where a piece begins.

        :param batch: the rollout in windows
        :param longest: largest number of steps of a piece
        :param chunk_size: largest number of steps in one pass
        :return: the same transitions in the same order, in shorter units
        """
        lengths, window = cut_lengths(batch.states.unit_lengths, longest)
        if len(window) == batch.n_units:
            return batch
        pieces = [self._memories_of_pieces(chunk.states, longest) for chunk in batch.chunks(chunk_size)]
        memory = tuple(th.cat(parts) for parts in zip(*pieces, strict=True))
        states = replace(batch.states, unit_starts=lengths.cumsum(0) - lengths, memory=memory)
        return replace(batch, states=states)

    def _memories_of_pieces(self, states: States, longest: int) -> Memory:
        """Run actor and critic through windows piece by piece, and collect the memory before each piece."""
        with th.no_grad():
            parts = [
                self._memory_before_pieces(self.policy.lstm_actor, self._actor_features(self.policy, states), states, longest)
            ]
            if self.policy.lstm_critic is not None:
                features = self._critic_features(self.policy, states)
                parts.append(self._memory_before_pieces(self.policy.lstm_critic, features, states, longest))
        return tuple(tensor for part in parts for tensor in part)

    def _memory_before_pieces(self, rnn: nn.RNNBase, features: th.Tensor, states: States, longest: int) -> Memory:
        lengths, window = cut_lengths(states.unit_lengths, longest)
        n_pieces = th.bincount(window)
        first = n_pieces.cumsum(0) - n_pieces
        pieces = States(states.observations, unit_starts=lengths.cumsum(0) - lengths)
        result, memory = no_memory(rnn, len(window)), self._memory_of(rnn, states)
        present = th.arange(len(n_pieces))
        for i in range(int(n_pieces.max())):
            for part, value in zip(result, memory, strict=True):
                part[first[present] + i] = value
            goes_on = n_pieces[present] > i + 1
            present = present[goes_on]
            if len(present):
                piece = first[present] + i
                before = tuple(part[goes_on] for part in memory)
                _, memory = self._run_sequences(rnn, features[pieces.rows_of(piece)], lengths[piece], before)
        return result

    def act(self, states: States) -> Acted:
        """Draw an action in every state, and keep the memory after it."""
        with th.no_grad(), self._lent(states) as policy:
            pi_features, vf_features = policy._both_features(states.observations)
            distribution, latent_pi, after_pi = self._act_distribution(policy, pi_features, states)
            latent_vf, after_vf = self._critic_latent(policy, vf_features, states, latent_pi)
            values = policy.value_net(policy.mlp_extractor.forward_critic(latent_vf))
            actions = with_samples(distribution, distribution.get_actions())
            log_probs = distribution.log_prob(actions)
            self.memory = (*after_pi, *after_vf)
            return Acted(actions.reshape(-1, *(policy.action_space.shape or ())), values, log_probs)

    def distribution(self, states: States) -> Distribution:
        """Compute the action distribution."""
        with self._lent(states) as policy:
            return self._act_distribution(policy, self._actor_features(policy, states), states)[0]

    def values(self, states: States) -> th.Tensor:
        """Compute the values."""
        return self.values_from_features(replace(states, observations=self.value_features(states)))

    def has_separable_values(self) -> bool:
        """Tell whether the values are a function of features; they are, because :meth:`values` computes them so."""
        return type(self).values is RecurrentInterface.values

    def value_features(self, states: States) -> th.Tensor:
        """Compute the critic's features."""
        return self._critic_features(self.policy, states)

    def values_from_features(self, states: States) -> th.Tensor:
        """Compute the values from the critic's features."""
        policy = self.policy
        assert isinstance(states.observations, th.Tensor)
        latent, _ = self._critic_latent(policy, states.observations, states, None)
        values: th.Tensor = policy.value_net(policy.mlp_extractor.forward_critic(latent))
        return values

    def visit(self, states: States, actions: th.Tensor) -> None:
        """Run actor and critic, a shared features extractor once."""
        with self._lent(states) as policy:
            pi_features, vf_features = policy._both_features(states.observations)
            latent, _ = self._run(policy.lstm_actor, pi_features, states)
            policy.mlp_extractor.forward_actor(latent)
            policy.mlp_extractor.forward_critic(self._critic_latent(policy, vf_features, states, latent)[0])

    def recurrent_states(self) -> RecurrentStates:
        """
        Return the memory after the last step as sb3-contrib's callbacks know it.

        :return: states of actor and critic; that of a critic without its own is the actor's
        """
        parts = tuple(part.transpose(0, 1) for part in self.memory)
        n = n_memory_parts(self.policy.lstm_actor)
        return RecurrentStates(parts[:n], parts[n:] or parts[:n])

    def _lent(self, states: States) -> AbstractContextManager[MlpLstmPolicy]:
        """Lend the policy as :meth:`restricted` does."""
        return own_distribution(self.policy, states.action_masks)

    def _act_distribution(
        self, policy: MlpLstmPolicy, features: th.Tensor, states: States
    ) -> tuple[Distribution, th.Tensor, Memory]:
        """Compute the distribution, the actor's latent, and its memory after each unit. All distributions are made here."""
        latent, after = self._run(policy.lstm_actor, features, states)
        distribution = policy._get_action_dist_from_latent(policy.mlp_extractor.forward_actor(latent))
        return distribution, latent, after

    @staticmethod
    def _actor_features(policy: MlpLstmPolicy, states: States) -> th.Tensor:
        features: th.Tensor = super(ActorCriticPolicy, policy).extract_features(
            states.observations, policy.pi_features_extractor
        )
        return features

    @staticmethod
    def _critic_features(policy: MlpLstmPolicy, states: States) -> th.Tensor:
        features: th.Tensor = super(ActorCriticPolicy, policy).extract_features(
            states.observations, policy.vf_features_extractor
        )
        return features

    def _critic_latent(
        self, policy: MlpLstmPolicy, features: th.Tensor, states: States, latent_pi: th.Tensor | None
    ) -> tuple[th.Tensor, Memory]:
        """Compute the input of the critic's networks, and the memory of its own recurrent layer after each unit."""
        if policy.critic is not None:
            return policy.critic(features), ()
        if policy.lstm_critic is not None:
            return self._run(policy.lstm_critic, features, states)
        if latent_pi is None:
            latent_pi, _ = self._run(policy.lstm_actor, features, states)
        return latent_pi.detach(), ()

    def _run(self, rnn: nn.RNNBase, features: th.Tensor, states: States) -> tuple[th.Tensor, Memory]:
        """Run a recurrent layer over the states' units: its outputs, and its memory after each unit."""
        return self._run_sequences(rnn, features, states.unit_lengths, self._memory_of(rnn, states))

    def _memory_of(self, rnn: nn.RNNBase, states: States) -> Memory:
        """Find the part of the states' memory that belongs to a recurrent layer."""
        assert states.memory is not None
        n = n_memory_parts(rnn)
        memory = states.memory[:n] if rnn is self.policy.lstm_actor else states.memory[n:]
        return tuple(part.to(dtype=first_weight(rnn).dtype) for part in memory)

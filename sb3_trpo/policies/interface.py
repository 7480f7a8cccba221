"""
The interface through which the package uses an actor-critic policy. No other file calls a policy; the layers of a plain one
are also computed by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.batch.stored_masks import mask_rows, stored_masks
from sb3_trpo.batch.whole import Share
from sb3_trpo.distributions.masked import masked
from sb3_trpo.distributions.squashed import with_samples
from sb3_trpo.originals import is_original

P = TypeVar("P", bound=ActorCriticPolicy)

Obs = np.ndarray | dict[str, np.ndarray]
"""Observations of a ``VecEnv``: shape (n_envs, ...), or a dict of such."""


class Acted(NamedTuple):
    """
    The actions of a policy at B states.

    :param actions: shape (B, ...), as the policy's ``forward`` returns them
    :param values: shape (B, 1)
    :param log_probs: shape (B,), nats
    """

    actions: th.Tensor
    values: th.Tensor
    log_probs: th.Tensor


class MaskSource(Protocol):
    """A place where action masks come from."""

    def masks(self, observations: Obs) -> np.ndarray:
        """
        Ask which actions are possible in the present states of the environments.

        :param observations: their observations
        :return: shape (n_envs, n), bool; at least one action of each environment is possible
        :raises ValueError: if a mask is none, naming environment and step
        """

    def observe(self, infos: Sequence[dict[str, Any]], dones: np.ndarray) -> None:
        """
        Take note of a step.

        :param infos: one per environment
        :param dones: whether an episode ended with the step, shape (n_envs,)
        """

    def get_state(self) -> Any:
        """
        Return what the masks of the present states come from, if it is kept here and not in the environments.

        :return: plain data
        """

    def set_state(self, state: Any) -> None:
        """
        Restore what the masks of the present states come from.

        :param state: a result of :meth:`get_state`
        """

    def explain(self, error: Exception, actions: np.ndarray) -> None:
        """
        Explain an error in a step, if an action was forbidden, or has become so since the environment was asked.

        :param error: the error
        :param actions: the actions of the step, shape (n_envs, ...)
        :raises ValueError: naming environment and step, if the mask now forbids the action, or did before
        """


class PolicyInterface:
    """
    Calls SB3's feed-forward actor-critic policies.

    To use policies that need more than observations and action masks, override these methods in a subclass, and name that in
    ``interface_class`` of the algorithm.

    :param policy: the policy
    """

    mask_source: MaskSource | None = None
    """The source of the action masks; None: all actions are possible."""
    distribution_methods: ClassVar[tuple[str, ...]] = ("get_distribution", "_get_action_dist_from_latent")
    """The policy's methods through which its action distribution is made."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    def take_over(self, previous: PolicyInterface) -> None:
        """
        Continue where the interface to another policy ended, after the policy of the model was replaced.

        :param previous: the other interface
        """
        self.mask_source = previous.mask_source

    def get_state(self) -> dict[str, Any]:
        """
        Return what the interface keeps of the present states of the environments, for a run that is resumed.

        :return: plain data and tensors by name
        """
        return {} if self.mask_source is None else {"masks": self.mask_source.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        Restore what the interface keeps of the present states.

        :param state: a result of :meth:`get_state`
        """
        if self.mask_source is not None and "masks" in state:
            self.mask_source.set_state(state["masks"])

    def present(self, observations: Obs, env: VecEnv, starts: np.ndarray) -> States:
        """
        Read the present states of the environments.

        :param observations: their observations, on the CPU
        :param env: the environments
        :param starts: whether an episode begins, shape (n_envs,)
        :return: the states, on the policy's device
        """
        return States(obs_as_tensor(observations, self.policy.device), self.present_masks(observations))

    def present_masks(self, observations: Obs) -> th.Tensor | None:
        """
        Ask the source of the action masks for those of the present states.

        :param observations: the observations of the environments
        :return: shape (n_envs, n), bool, on the policy's device; None: all actions are possible
        """
        if self.mask_source is None:
            return None
        return th.from_numpy(self.mask_source.masks(observations)).to(self.policy.device)

    def restricted(self, states: States) -> AbstractContextManager[ActorCriticPolicy]:
        """
        Lend the policy with a distribution of its own, which gives no probability to actions that the states' masks forbid.

        :param states: B states; without masks, all actions are possible
        :return: the context of :func:`own_distribution`
        """
        return own_distribution(self.policy, states.action_masks)

    def terminal(self, observations: Obs, envs: Sequence[int]) -> States:
        """
        Read the states in which a time limit cut episodes off.

        :param observations: the k terminal observations, as the environments return them
        :param envs: indices of the k environments
        :return: the states, on the policy's device
        """
        return States(self.policy.obs_to_tensor(observations)[0])

    def store(self, buffer: Any, step: int, states: States) -> None:
        """
        Store the parts of the states that ``buffer.add`` does not: all except the observations.

        :param buffer: the rollout buffer
        :param step: index of the step in the rollout
        :param states: states of this step
        """
        if states.action_masks is not None:
            mask_rows(buffer, states.action_masks.shape[1])[step] = states.action_masks.cpu().numpy()

    def state_fields(self, rollout: Any) -> dict[str, Any]:
        """
        Find the states in a rollout.

        :param rollout: a full rollout buffer, or samples of one
        :return: its arrays or tensors, one row per transition, by their names in :class:`~sb3_trpo.batch.states.States`
        """
        if self.mask_source is None:
            return {"observations": rollout.observations}
        return {"observations": rollout.observations, "action_masks": stored_masks(rollout)}

    def arrange(self, batch: Batch, n_envs: int) -> Batch:
        """
        Arrange a rollout in the units that the policy needs: single transitions.

        A recurrent policy sorts the transitions by environment, says where its windows start, and adds the memory before
        each of them.

        :param batch: the rollout, in time-major order
        :param n_envs: number of environments
        :return: the same transitions in units
        """
        return batch

    def act(self, states: States) -> Acted:
        """
        Draw an action in every state.

        :param states: B states
        :return: actions, values and log-probabilities, without a graph; saturated actions of squashed gSDE are kept as
            :class:`~sb3_trpo.distributions.squashed.KeepingTanh` describes
        """
        with th.no_grad(), self.restricted(states) as policy:
            acted = Acted(*policy(states.observations))
            actions = with_samples(policy.action_dist, acted.actions)
            if actions is acted.actions:
                return acted
            log_probs = policy.action_dist.log_prob(actions.flatten(start_dim=1))
            return Acted(actions, acted.values, log_probs)

    def sample(self, distribution: Distribution, n_noises: int | None = None) -> th.Tensor:
        """
        Draw an action in every state, in the form in which :meth:`act` returns them.

        :param distribution: the distribution in B states
        :param n_noises: number of noise matrices to draw for gSDE before; None: none
        :return: shape (B, ...)
        """
        if n_noises is not None:
            assert isinstance(distribution, StateDependentNoiseDistribution)
            with th.no_grad():
                distribution.sample_weights(self.policy.log_std, batch_size=n_noises)
        return with_samples(distribution, distribution.sample())

    def distribution(self, states: States) -> Distribution:
        """
        Compute the action distribution.

        SB3's policies return the same object from every call; here every call gives another, so that a thread that predicts
        does not change it.

        :param states: B states
        :return: the distribution, with its graph
        """
        with self.restricted(states) as policy:
            distribution = policy.get_distribution(states.observations)
            if states.action_masks is not None and distribution is not policy.action_dist:
                raise ValueError(
                    f"action masks need a policy that draws its actions from its `action_dist`; the {type(policy).__name__} "
                    f"makes a {type(distribution).__name__} of its own"
                )
            return distribution

    def values(self, states: States) -> th.Tensor:
        """
        Compute the values.

        :param states: B states
        :return: shape (B, 1), with their graph
        """
        return self.policy.predict_values(states.observations)

    def has_separable_values(self) -> bool:
        """
        Tell whether the values are a function of features that :meth:`value_features` computes.

        :return: whether they are
        """
        policy = self.policy
        own = ActorCriticPolicy.predict_values
        overridden = type(policy).predict_values is not own or "predict_values" in vars(policy)
        original = is_original(ActorCriticPolicy, "predict_values")
        return type(self).values is PolicyInterface.values and original and not overridden

    def value_features(self, states: States) -> th.Tensor:
        """
        Compute the critic's features, the part of the values before its own layers.

        :param states: B states
        :return: shape (B, ...)
        """
        extract = super(ActorCriticPolicy, self.policy).extract_features
        return extract(states.observations, self.policy.vf_features_extractor)

    def values_from_features(self, states: States) -> th.Tensor:
        """
        Compute the values from the critic's features.

        :param states: B states, with their features in place of their observations
        :return: shape (B, 1), with their graph
        """
        assert isinstance(states.observations, th.Tensor)
        values: th.Tensor = self.policy.value_net(self.policy.mlp_extractor.forward_critic(states.observations))
        return values

    def visit(self, states: States, actions: th.Tensor) -> None:
        """
        Run actor and critic, so that layers in training mode update their statistics.

        :param states: B states
        :param actions: actions taken there
        """
        with self.restricted(states) as policy:
            policy.evaluate_actions(states.observations, actions)

    def reset_noise(self, n_envs: int, share: Share | None = None) -> None:
        """
        Draw new noise matrices for gSDE, without a graph.

        :param n_envs: number of matrices
        :param share: this worker's environments among all, for which matrices are drawn; None: it has all
        """
        share = share or Share.of(n_envs)
        with th.no_grad():
            self.policy.reset_noise(share.total)
        distribution: Any = self.policy.action_dist
        if share.total > n_envs:
            distribution.exploration_matrices = distribution.exploration_matrices[share.own]


@contextmanager
def own_distribution(policy: P, action_masks: th.Tensor | None = None) -> Iterator[P]:
    """
    Lend a policy with a distribution of its own, which no other thread can set to other states.

    :param policy: the policy
    :param action_masks: the actions that are possible in the states for which the policy is lent, shape (B, n), bool; None:
        all
    :return: a policy that shares everything with it except ``action_dist``; attributes that it sets while it is lent are set
        in the policy too
    """
    attributes = vars(policy)
    lent: P = object.__new__(type(policy))
    own = copy.copy(policy.action_dist) if action_masks is None else masked(policy.action_dist, action_masks)
    vars(lent).update(attributes, action_dist=own)
    before = dict(vars(lent))
    try:
        yield lent
    finally:
        changed = {name: value for name, value in vars(lent).items() if before.get(name, lent) is not value}
        attributes.update(changed)

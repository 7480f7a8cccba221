"""Collect rollouts without updating the policy."""

from typing import NamedTuple

import torch as th

from sb3_trpo import TRPO
from sb3_trpo.actor.choose import actor_network
from sb3_trpo.actor.chunk_size import automatic_chunk_size
from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.actor.plain_policy import PlainPolicy
from sb3_trpo.actor.reached_parameters import reached_parameters
from sb3_trpo.batch.advantages import effective_advantages
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import read_batch


def collect(model: TRPO) -> Batch:
    """
    Collect a rollout without an update; it goes on where the last one ended.

    :param model: the model
    :return: its states, with the advantages of the rollout
    """
    assert model.env is not None
    _, callback = model._setup_learn(10**9, reset_num_timesteps=model._last_obs is None)
    callback.on_training_start({}, {})
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    model.policy.set_training_mode(False)
    return read_batch(model.rollout_buffer, model.action_space, model.interface.state_fields)


class Actor(NamedTuple):
    """
    The actor of a policy, as an update differentiates it.

    :param network: the actor
    :param parameters: those that the action distribution depends on, P elements in all
    :param chunk_size: most states in one pass
    """

    network: ActorNetwork
    parameters: list[th.nn.Parameter]
    chunk_size: int


def actor_of(model: TRPO, batch: Batch) -> Actor:
    """
    Find the actor of a model.

    :param model: the model, in evaluation mode
    :param batch: a rollout of its policy
    :return: the actor
    """
    interface, plain = model.interface, PlainPolicy.of(model.policy)
    chunk_size = automatic_chunk_size(interface, batch)
    parameters = reached_parameters(interface, plain, batch, chunk_size)
    return Actor(actor_network(interface, plain), parameters, chunk_size)


def standardised(batch: Batch) -> Batch:
    """
    Standardise advantages as a step does.

    :param batch: states with the advantages of a rollout
    :return: the same states with the advantages that a step uses
    """
    return batch.with_advantages(effective_advantages(batch.advantages, batch.returns, normalize=True))

"""Rollouts of a policy that stays as it is."""

from sb3_trpo import TRPO
from sb3_trpo.batch.advantages import effective_advantages
from sb3_trpo.batch.batch import Batch, read_batch


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
    return read_batch(model.rollout_buffer, model.action_space)


def standardised(batch: Batch) -> Batch:
    """
    Standardise advantages as a step does.

    :param batch: states with the advantages of a rollout
    :return: the same states with the advantages that a step uses
    """
    return batch.with_advantages(effective_advantages(batch.advantages, batch.returns, normalize=True))

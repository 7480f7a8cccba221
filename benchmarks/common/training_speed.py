"""Measure the time and memory of training: of whole runs, and of the update alone."""

from collections.abc import Callable

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.processes import memory
from benchmarks.common.timing import Comparison, in_turns, seconds, timed

Models = tuple[OnPolicyAlgorithm, OnPolicyAlgorithm]
"""Ours and the peer's."""


def learn(model: OnPolicyAlgorithm) -> float:
    """
    Train for one iteration: a rollout and its update.

    :param model: a model that has learned before
    :return: seconds
    """
    return seconds(lambda: model.learn(model.n_steps * model.n_envs, reset_num_timesteps=False))


def whole_run(models: Models, rounds: int) -> Comparison:
    """Compare iterations, in env steps per second; the first of each model is not counted."""
    ours, peer = models
    for model in models:
        model.learn(model.n_steps * model.n_envs)
    return in_turns(lambda: learn(ours), lambda: learn(peer), rounds).rates(ours.n_steps * ours.n_envs)


def update_alone(models: Models, rounds: int) -> Comparison:
    """Compare updates, in seconds; the first of each model is not counted."""
    ours, peer = map(_update_timer, models)
    return in_turns(ours, peer, rounds)


def _update_timer(model: OnPolicyAlgorithm) -> Callable[[], float]:
    """Train for one iteration, and return a function that trains for another and returns the seconds of its update."""
    record: list[float] = []
    model.train = timed(model.train, record)  # type: ignore[method-assign]
    model.learn(model.n_steps * model.n_envs)

    def update() -> float:
        learn(model)
        return record[-1]

    return update


def blank_rollout(model: OnPolicyAlgorithm, n_steps: int) -> RolloutBuffer:
    """
    Give a model a rollout of another length that counts as full.

    :param model: the model
    :param n_steps: steps of each environment
    :return: the rollout, whose values the caller fills in
    """
    cls = type(model.rollout_buffer)
    buffer = cls(n_steps, model.observation_space, model.action_space, "cpu", n_envs=model.n_envs)
    buffer.full = True
    model.rollout_buffer = buffer
    return buffer


def update_memory(model: OnPolicyAlgorithm) -> int:
    """
    Update a model with its rollout.

    :param model: a model that has learned before, so that memory that is allocated once does not count
    :return: peak memory of this process, which must not have had a higher one before, beyond that before the update; bytes
    """
    before = memory("VmRSS")
    model.train()
    return memory("VmHWM") - before

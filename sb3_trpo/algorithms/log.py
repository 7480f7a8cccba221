"""The log of an update: every metric under its key, as docs/trpo.md lists them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import explained_variance

from sb3_trpo.step.report import Outcome, StepReport, UnboundedReport
from sb3_trpo.step.workers import ALONE, Workers

ADVICE = {
    Outcome.NON_POSITIVE_CURVATURE: "raise cg_damping",
    Outcome.NON_FINITE: "look at the policy's outputs",
    Outcome.LINE_SEARCH_FAILED: "raise line_search_max_iter",
    Outcome.NO_ASCENT: "raise line_search_max_iter or kl_coef",
    Outcome.TRIAL_NOT_FINITE: "lower target_kl or step_size",
}
"""Advice for each outcome that a setting may cure."""


class Update(NamedTuple):
    """
    The results of one update, for the log.

    :param step: the policy step
    :param entropy: mean entropy of the policy before the step, nats
    :param losses: loss of each mini-batch of the critic; one that is not finite caused no step
    :param n_updates: number of updates so far
    :param seconds: duration of the update
    :param target_kl: δ of this update, nats
    :param forced_fraction: share of the states in which action masks allow one action only; None: there are no masks
    :param reduce_seconds: part of the seconds that sums over several processes took, waiting included
    """

    step: StepReport
    entropy: float
    losses: Sequence[float]
    n_updates: int
    seconds: float
    target_kl: float
    forced_fraction: float | None = None
    reduce_seconds: float = 0.0


def log_update(
    logger: Logger, update: Update, policy: ActorCriticPolicy, buffer: RolloutBuffer, workers: Workers = ALONE
) -> None:
    """
    Record an update.

    :param logger: where to record
    :param update: the update
    :param policy: the policy, whose standard deviation is recorded if it has one
    :param buffer: the rollout, for the explained variance of its values
    :param workers: the processes that have shared the update
    """
    for key in ("train/outcome", "train/critic_minibatches_skipped"):  # an earlier update may not have been printed
        logger.name_to_value.pop(key, None)
    for key, value in _step_metrics(update.step, update.target_kl).items():
        logger.record(key, value)
    logger.record("train/entropy", update.entropy)
    if update.forced_fraction is not None:
        logger.record("train/forced_fraction", update.forced_fraction)
    finite = [loss for loss in update.losses if np.isfinite(loss)]
    if finite:
        logger.record("train/value_loss", np.mean(finite))
    if len(finite) < len(update.losses):
        logger.record("train/critic_minibatches_skipped", len(update.losses) - len(finite))
    logger.record("train/explained_variance", _explained_variance(buffer, workers))
    if hasattr(policy, "log_std"):
        logger.record("train/std", policy.log_std.detach().exp().mean().item())
    _record_texts(logger, update.step)
    logger.record("train/n_updates", update.n_updates, exclude="tensorboard")
    logger.record("time/update_seconds", update.seconds)
    if workers.size > 1:
        logger.record("time/reduce_seconds", update.reduce_seconds)


def mean_over(workers: Workers, value: float, number: float) -> float:
    """
    Average a mean over the workers.

    :param workers: the workers
    :param value: this worker's mean
    :param number: number of values in it
    :return: the mean of all values, equal on every worker
    """
    if workers.size == 1:
        return value
    total, n = workers.sum(th.tensor([value * number, number], dtype=th.float64)).tolist()
    return float(total / n)


def _explained_variance(buffer: RolloutBuffer, workers: Workers) -> float:
    values, returns = buffer.values.flatten(), buffer.returns.flatten()
    if workers.size == 1:
        return float(explained_variance(values, returns))
    rows = th.from_numpy(np.stack([returns, returns - values])).double()
    n, *sums = workers.sum(th.cat([th.tensor([float(rows.shape[1])], dtype=th.float64), rows.sum(dim=1)])).tolist()
    means = th.tensor(sums, dtype=th.float64)[:, None] / n
    squares = workers.sum((rows - means).square().sum(dim=1))
    of_returns, of_errors = map(float, squares.tolist())
    return float("nan") if of_returns == 0.0 else 1.0 - of_errors / of_returns


def _step_metrics(step: StepReport, target_kl: float) -> dict[str, Any]:
    metrics = {
        "train/policy_objective": step.surrogate,
        "train/surrogate_gain": step.surrogate_gain,
        "train/expected_gain": step.expected_gain,
        "train/kl_divergence_loss": step.kl,
        "train/target_kl": target_kl,
        "train/is_line_search_success": float(step.accepted),
        "train/line_search_steps": step.line_search_steps,
        "train/step_fraction": step.step_fraction,
        "train/cg_iterations": step.cg_iterations,
        "train/cg_residual": step.cg_residual,
    }
    if isinstance(step, UnboundedReport):
        # of the whole update: where running statistics move, the step's own target is a part of it
        metrics["train/kl_over_target"] = float(step.kl > target_kl)
        if step.kl_coef is not None:
            metrics["train/kl_coef"] = step.kl_coef
    return metrics


def _record_texts(logger: Logger, step: StepReport) -> None:
    """Record in words how solver and step ended, unless another library's logger would average the words."""
    if type(logger).record is not Logger.record or type(logger).dump is not Logger.dump:
        return
    solver = "not asked" if step.cg_outcome is None else step.cg_outcome.value
    logger.record("train/cg_outcome", solver, exclude="tensorboard")
    if not step.accepted:
        advice = f"; {ADVICE[step.outcome]}" if step.outcome in ADVICE else ""
        logger.record("train/outcome", step.outcome.value + advice, exclude="tensorboard")

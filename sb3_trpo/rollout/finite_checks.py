"""Refuses numbers that are not finite, before they reach the environment or the weights."""

import math
from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

LARGEST_RETURN = 1e15
"""Largest return, roughly, for which squared critic gradients, stored by Adam, fit in float32."""


def check_finite(
    quantity: str,
    value: np.ndarray | dict[str, np.ndarray],
    step: int,
    normalizer: VecNormalize | None = None,
    envs: Sequence[int] | None = None,
) -> None:
    """
    Refuse NaN and inf.

    :param quantity: name of the value, for the message
    :param value: shape (n_envs, ...), or a dict of such
    :param step: index of the step in the rollout, for the message
    :param normalizer: the ``VecNormalize`` that the value came through, if any
    :param envs: indices of the environments to which the rows belong; None: all of them
    :raises ValueError: naming quantity, step and environment, and saying if the normaliser's statistics are not finite
    """
    if isinstance(value, dict):
        for key, part in value.items():
            check_finite(f"{quantity} {key!r}", part, step, normalizer, envs)
        return
    if value.dtype.kind != "f":
        return
    # the dot product is the fastest test; it can overflow, so only a finite one decides
    if math.isfinite(value.item() if value.size == 1 else np.vdot(value, value)) or np.isfinite(value).all():
        return
    rows = np.isfinite(value.reshape(len(value), -1)).all(axis=1)
    row = int(np.argmin(rows))
    env = row if envs is None else envs[row]
    message = (
        f"The {quantity} of environment {env} at step {step} of the rollout is not finite: {value[row]}. "
        "The policy was not updated with it."
    )
    if normalizer is not None and not _statistics_are_finite(normalizer):
        message += (
            " It has also reached the running statistics of VecNormalize, which cannot be repaired: "
            "create a new VecNormalize, or load one that was saved before."
        )
    raise ValueError(message)


def _statistics_are_finite(normalizer: VecNormalize) -> bool:
    statistics = [normalizer.ret_rms]
    if hasattr(normalizer, "obs_rms"):
        statistics += list(normalizer.obs_rms.values()) if isinstance(normalizer.obs_rms, dict) else [normalizer.obs_rms]
    return all(np.isfinite(s.mean).all() and np.isfinite(s.var).all() for s in statistics)


def check_returns(returns: th.Tensor, advantages: th.Tensor) -> None:
    """
    Refuse returns and advantages that contain NaN or are too large for float32.

    :param returns: shape (B,)
    :param advantages: shape (B,)
    :raises ValueError: naming the quantity, its value and what is allowed
    """
    for quantity, values in (("returns", returns), ("advantages", advantages)):
        largest = values.abs().max().item()
        if math.isnan(largest):
            raise ValueError(f"The {quantity} of the rollout contain NaN. The policy was not updated.")
        if largest > LARGEST_RETURN:
            raise ValueError(
                f"The {quantity} of the rollout reach {largest:g}, which float32 training cannot handle "
                f"(at most {LARGEST_RETURN:g}). Scale the rewards down, for instance with VecNormalize. "
                "The policy was not updated."
            )

"""Action masks in a rollout buffer: one array beside SB3's, with one byte for each entry."""

from typing import Any

import numpy as np
import torch as th

from sb3_trpo.checks import described


def mask_rows(buffer: Any, size: int) -> np.ndarray:
    """
    Find the array for the masks of a rollout, or make it.

    :param buffer: a rollout buffer; one of sb3-contrib's has its own array, which has the same name
    :param size: length of a mask, n
    :return: shape (n_steps, n_envs, n)
    """
    shape = (buffer.buffer_size, buffer.n_envs, size)
    if getattr(buffer, "action_masks", None) is None or buffer.action_masks.shape != shape:
        buffer.action_masks = np.ones(shape, dtype=np.bool_)
    rows: np.ndarray = buffer.action_masks
    return rows


def stored_masks(rollout: Any) -> Any:
    """
    Read the masks of a rollout.

    :param rollout: a full rollout buffer, or samples of one
    :return: an array with one row per transition, in the order of the buffer's other arrays, or a tensor of samples; bool
    :raises ValueError: if there are none
    """
    masks = getattr(rollout, "action_masks", None)
    if masks is None:
        raise ValueError(
            f"a rollout buffer with a custom `get` must give `action_masks` with its samples; {described(type(rollout))} has "
            "none. Derive it from sb3-contrib's MaskableRolloutBuffer, or leave out `rollout_buffer_class`"
        )
    if isinstance(masks, th.Tensor):
        return masks.bool()
    # SB3 has reordered its own arrays if its `get` was called
    return masks.swapaxes(0, 1).reshape(-1, masks.shape[2]) if rollout.generator_ready else masks

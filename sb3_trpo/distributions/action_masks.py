"""The layout of action masks: which of their entries belong to which choice, and what a mask may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_trpo.checks import described

MASKABLE_SPACES = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Action spaces whose actions can be masked."""

_BOOL = np.dtype(np.bool_)

Owner = Callable[[int], str]
"""Maps the number of a mask to the words that name it in a message."""


@dataclass(frozen=True)
class MaskLayout:
    """
    The entries of a mask: for each choice one entry for each of its values, one choice after another. True allows a value.

    A ``Discrete(n)`` is one choice with n values, a ``MultiDiscrete`` has a choice for every dimension, and a
    ``MultiBinary(d)`` has d choices with the values off and on.

    :param sizes: number of values of each choice
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> MaskLayout:
        """
        Find the layout of the masks for an action space.

        :param space: the action space
        :return: the layout
        :raises ValueError: if actions of the space cannot be masked
        """
        if isinstance(space, spaces.Discrete):
            return cls((int(space.n),))
        if isinstance(space, spaces.MultiDiscrete):
            return cls(tuple(space.nvec.tolist()))
        if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
            return cls((2,) * space.n)
        raise ValueError(
            f"action masks need a Discrete, a MultiDiscrete or a MultiBinary of one dimension as `action_space`, not {space}"
        )

    @cached_property
    def size(self) -> int:
        """Return the length of a mask."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> np.ndarray:
        """Return the first entry of each choice, shape (number of choices,)."""
        return np.cumsum((0, *self.sizes[:-1]))

    def read(self, masks: Any, n_masks: int, owner: Owner) -> np.ndarray:
        """
        Read masks, and refuse those that are none.

        :param masks: as many masks of 0 and 1, or of booleans, each of shape (size,)
        :param n_masks: their number
        :param owner: names the i-th mask in a message
        :return: a copy, shape (n_masks, size), bool
        :raises ValueError: naming a mask that has another shape, another value than 0 and 1, or no allowed value for a choice
        """
        try:
            array = np.array(masks.cpu().numpy() if isinstance(masks, th.Tensor) else masks)
        except ValueError:  # of different lengths
            array = np.empty(0)
        if array.shape != (n_masks, self.size):
            self._refuse_shape(masks, n_masks, owner)
        if array.dtype is not _BOOL:
            array = _booleans(array, owner)
        if n_masks == 1 and len(self.sizes) == 1 and np.count_nonzero(array):  # several times as fast as the general form
            return array
        possible = np.logical_or.reduceat(array, self.starts, axis=1)
        if not possible.all():
            row, choice = (int(part[0]) for part in np.nonzero(~possible))
            of_choice = f" in dimension {choice} of the action" if len(self.sizes) > 1 else ""
            raise ValueError(f"{owner(row)} allows no value{of_choice}: at least one must be True")
        return array

    def _refuse_shape(self, masks: Any, n_masks: int, owner: Owner) -> None:
        try:
            n_given = len(masks)
        except TypeError:
            raise ValueError(f"{owner(0)} must be a sequence of booleans, not {described(masks)}") from None
        if n_given != n_masks:
            raise ValueError(f"there must be {n_masks} action masks, not {n_given}: {owner(0)} and so on")
        shapes = [_shape_of(mask) for mask in masks]
        row = next((i for i, shape in enumerate(shapes) if shape != (self.size,)), 0)
        parts = f" ({' + '.join(map(str, self.sizes))})" if 1 < len(self.sizes) < 10 else ""
        raise ValueError(f"{owner(row)} must have the shape ({self.size},){parts}, not {shapes[row]}")

    def forbidden(self, masks: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """
        Find actions that their masks do not allow.

        :param masks: shape (B, size), bool
        :param actions: whole numbers within the space, shape (B, number of choices) or (B,)
        :return: rows of the forbidden actions
        """
        chosen = self.starts + actions.reshape(len(masks), -1).astype(np.int64)
        return np.flatnonzero(~np.take_along_axis(masks, chosen, axis=1).all(axis=1))


def _booleans(numbers: np.ndarray, owner: Owner) -> np.ndarray:
    """Convert masks of numbers, shape (n_masks, size), to booleans."""
    # integers of one byte are common, and this way of looking at them is the fastest
    if numbers.dtype.kind in "iu" and numbers.itemsize == 1 and not numbers.tobytes().translate(None, b"\0\1"):
        return numbers.view(np.bool_)
    array = numbers.astype(np.bool_)
    wrong = numbers != array
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        value = numbers[row][wrong[row]][0]
        raise ValueError(f"{owner(row)} must have the values 0 and 1, or True and False, only, not {value!r}")
    return array


def _shape_of(mask: Any) -> tuple[int, ...] | str:
    try:
        shape: tuple[int, ...] = tuple(mask.shape) if isinstance(mask, th.Tensor) else np.shape(mask)
    except ValueError:
        return "parts of different lengths"
    return shape


def refuse_forbidden(layout: MaskLayout, masks: np.ndarray, actions: np.ndarray, first_step: int) -> None:
    """
    Refuse actions that their masks do not allow.

    :param layout: the layout of the masks
    :param masks: shape (n_steps, n_envs, size), bool
    :param actions: shape (n_steps, n_envs, ...)
    :param first_step: index of the first of these steps in the rollout, for the message
    :raises ValueError: naming environment, step and action
    """
    n_envs = masks.shape[1]
    taken = actions.reshape(len(masks) * n_envs, -1)
    rows: Sequence[int] = layout.forbidden(masks.reshape(len(taken), -1), taken).tolist()
    if rows:
        step, env = divmod(rows[0], n_envs)
        raise ValueError(
            f"The action {taken[rows[0]].tolist()} of environment {env} at step {first_step + step} of the rollout is masked. "
            "The policy drew it although its mask forbids it, or it was changed afterwards. The policy was not updated."
        )


def forced_fraction(masks: th.Tensor | None, space: spaces.Space[Any]) -> float | None:
    """
    Compute the share of the states in which masks allow one action only, so that nothing can be learned there.

    :param masks: shape (B, n), bool; None: there are none
    :param space: the action space
    :return: the share; None without masks
    """
    if masks is None:
        return None
    return (masks.sum(dim=1) == len(MaskLayout.of(space).sizes)).double().mean().item()

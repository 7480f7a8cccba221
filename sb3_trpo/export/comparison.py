"""Compares an exported policy with the model that it was made from."""

from collections.abc import Callable, Sequence

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_trpo.export.further_inputs import next_name
from sb3_trpo.export.inputs import Preparation
from sb3_trpo.export.module import OUTPUTS, ExportedPolicy
from sb3_trpo.export.reference import Reference
from sb3_trpo.export.samples import random_values

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Runs an exported policy: the inputs in order, each of shape (B, ...), to the outputs in order."""

_BATCHES = (1, 7, 56)
"""Sizes of the batches with which a file is checked."""
_STEPS = 50
"""Number of steps with which a policy with memory is checked; one in ten begins an episode."""
_ACTION_TOLERANCE = 1e-5
"""Of actions and memories."""
_OTHER_TOLERANCE = 1e-4
"""Of values, probabilities and their logarithms. Both tolerances are absolute for numbers up to 1, and relative beyond."""


class ExportError(ValueError):
    """A policy that cannot be exported, or whose exported file would not act as the model does."""


class Comparison:
    """
    Compares an exported policy with ``predict`` on random observations, masks and memories.

    :param preparation: the way of the observations to the policy
    :param module: the module that was exported
    """

    def __init__(self, preparation: Preparation, module: ExportedPolicy) -> None:
        self.module = module
        self.reference = Reference(preparation, module)
        self._has_memory = any(each.field == "memory" for each in module.inputs)

    def check(self, run: Run) -> None:
        """
        Check an exported policy.

        :param run: runs it
        :raises ExportError: at the first output that differs
        """
        rng = np.random.default_rng(0)
        for n in _BATCHES:
            values = self._random(n, rng)
            self._check_outputs(self._found(run, values), self.reference.outputs(values), values)
        if self._has_memory:
            self._check_episodes(run, rng)

    def _check_episodes(self, run: Run, rng: np.random.Generator) -> None:
        """
        Take steps with the file, and compare each of them with the model's step from the same memory.

        If the model went on with its own memory, rounding could grow from step to step until a correct file is refused.
        """
        values = self._random(_BATCHES[1], rng)
        for _ in range(_STEPS):
            found = self._found(run, values)
            self._check_outputs(found, self.reference.outputs(values), values)
            values = self._with_memory(self._random(_BATCHES[1], rng), found)

    def _with_memory(self, values: Sequence[np.ndarray], outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Replace the memory of random inputs by that after a step."""
        named = zip(self.module.inputs, values, strict=True)
        return [outputs[next_name(each.name)] if each.field == "memory" else part for each, part in named]

    def _random(self, n: int, rng: np.random.Generator) -> list[np.ndarray]:
        return [random_values(each, n, rng) for each in self.module.inputs]

    def _found(self, run: Run, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.module.outputs, run(values), strict=True))

    def _check_outputs(
        self, found: dict[str, np.ndarray], expected: dict[str, np.ndarray], values: Sequence[np.ndarray]
    ) -> None:
        for name in expected:
            self._compare(name, found[name], expected[name], values)

    def _compare(self, name: str, found: np.ndarray, expected: np.ndarray, values: Sequence[np.ndarray]) -> None:
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ExportError(
                f"the exported policy returns the {name} as {found.dtype} of shape {found.shape}, not as {expected.dtype} of "
                f"shape {expected.shape}"
            )
        if name == "action" and not isinstance(self.module.policy.action_space, spaces.Box):
            differ = self._other_choices(found, expected, values)
        else:
            tolerance = _OTHER_TOLERANCE if name in OUTPUTS[1:] else _ACTION_TOLERANCE
            differ = ~np.isclose(found, expected, rtol=tolerance, atol=tolerance)
        rows = np.flatnonzero(differ.reshape(len(differ), -1).any(axis=1))
        if len(rows):
            raise ExportError(
                "the exported policy would not do what the model does: for one of the random observations with which it was "
                f"checked, its {name} is {found[rows[0]]}, and the model's is {expected[rows[0]]}"
            )

    def _other_choices(self, found: np.ndarray, expected: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
        """Find the states in which the choice is another one, and not equally probable up to rounding."""
        differ: np.ndarray = (found != expected).reshape(len(found), -1).any(axis=1)
        if differ.any():
            distribution = self.reference.distribution(values)
            ours, theirs = (distribution.log_prob(th.as_tensor(part)) for part in (found, expected))
            differ &= ~th.isclose(ours, theirs, rtol=_ACTION_TOLERANCE, atol=_ACTION_TOLERANCE).numpy()
        return differ

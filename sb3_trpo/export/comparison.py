"""Compares an exported policy with the model that it was made from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.batch.states import States
from sb3_trpo.export.inputs import Preparation
from sb3_trpo.export.module import ExportedPolicy, probabilities_of
from sb3_trpo.export.samples import random_values

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Runs an exported policy: the inputs in order, each of shape (B, ...), to the outputs in order."""

_BATCHES = (1, 7, 56)
"""Sizes of the batches with which a file is checked."""
_ACTION_TOLERANCE = 1e-5
_OTHER_TOLERANCE = 1e-4
"""Of values, probabilities and their logarithms. Both tolerances are absolute for numbers up to 1, and relative beyond."""


class ExportError(ValueError):
    """A policy that cannot be exported, or whose exported file would not act as the model does."""


class Comparison:
    """
    Compares an exported policy with ``predict`` on random observations.

    It calls ``predict`` of the module's copy of the policy: the model's own may be on a GPU, which rounds convolutions to
    fewer digits than the comparison needs.

    :param preparation: the way of the observations to the policy
    :param module: the module that was exported
    """

    def __init__(self, preparation: Preparation, module: ExportedPolicy) -> None:
        self.preparation = preparation
        self.module = module
        self.policy = module.policy

    def check(self, run: Run) -> None:
        """
        Check an exported policy.

        :param run: runs it
        :raises ExportError: at the first output that differs
        """
        rng = np.random.default_rng(0)
        for n in _BATCHES:
            values = [random_values(each, n, rng) for each in self.module.inputs]
            found = dict(zip(self.module.outputs, run(values), strict=True))
            for name, expected in self.expected(values).items():
                self._compare(name, found[name], expected, values)

    def expected(self, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """
        Compute the outputs without the module.

        :param values: the inputs in order
        :return: the outputs by name
        """
        prepared = self._prepared(values)
        states, distribution = self._states(prepared), self._distribution(prepared)
        compute: dict[str, Callable[[], Any]] = {
            "action": lambda: self.policy.predict(prepared, deterministic=True)[0],
            "value": lambda: self.module.interface.values(states).flatten(),
            "log_prob": lambda: distribution.log_prob(distribution.get_actions(deterministic=True)),
            "probabilities": lambda: probabilities_of(distribution),
        }
        with th.no_grad():
            computed = {name: compute[name]() for name in self.module.outputs}
        return {name: np.asarray(part) for name, part in computed.items()}

    def _prepared(self, values: Sequence[np.ndarray]) -> Any:
        """Prepare the inputs for ``predict`` without the module."""
        named = zip(self.module.inputs, values, strict=True)
        return self.preparation.by_sb3({each.key: part for each, part in named if each.field == "observations"})

    def _states(self, prepared: Any) -> States:
        return States(self.policy.obs_to_tensor(prepared)[0])

    def _distribution(self, prepared: Any) -> Distribution:
        with th.no_grad():
            return self.module.interface.distribution(self._states(prepared))

    def _compare(self, name: str, found: np.ndarray, expected: np.ndarray, values: Sequence[np.ndarray]) -> None:
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ExportError(
                f"the exported policy returns the {name} as {found.dtype} of shape {found.shape}, not as {expected.dtype} of "
                f"shape {expected.shape}"
            )
        if name == "action" and not isinstance(self.policy.action_space, spaces.Box):
            differ = self._other_choices(found, expected, values)
        else:
            tolerance = _ACTION_TOLERANCE if name == "action" else _OTHER_TOLERANCE
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
            distribution = self._distribution(self._prepared(values))
            ours, theirs = (distribution.log_prob(th.as_tensor(part)) for part in (found, expected))
            differ &= ~th.isclose(ours, theirs, rtol=_ACTION_TOLERANCE, atol=_ACTION_TOLERANCE).numpy()
        return differ

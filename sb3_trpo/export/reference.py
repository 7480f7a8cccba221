"""What a model computes for given inputs, without the exported module: the side with which an exported file is compared."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution

from sb3_trpo.export.further_inputs import is_of_critic, next_name
from sb3_trpo.export.inputs import Preparation
from sb3_trpo.export.module import ExportedPolicy, probabilities_of
from sb3_trpo.policies.interface import own_distribution
from sb3_trpo.policies.maskable import read_masks
from sb3_trpo.policies.sequences import RecurrentStates


class Reference:
    """
    Computes outputs with the policy's own methods, such as ``predict``.

    It calls the module's copy of the policy: the model's own may be on a GPU, which rounds convolutions to fewer digits than
    the comparison needs.

    :param preparation: the way of the observations to the policy
    :param module: the module that was exported
    """

    def __init__(self, preparation: Preparation, module: ExportedPolicy) -> None:
        self.preparation = preparation
        self.module = module
        self.policy: Any = module.policy

    def outputs(self, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """
        Compute the outputs.

        :param values: the inputs in order
        :return: the outputs by name
        """
        distribution = self.distribution(values)
        compute: dict[str, Callable[[], Any]] = {
            "value": lambda: self._values(values).flatten(),
            "log_prob": lambda: distribution.log_prob(distribution.get_actions(deterministic=True)),
            "probabilities": lambda: probabilities_of(distribution),
        }
        found = self._predicted(values)
        with th.no_grad():
            found |= {name: np.asarray(compute[name]()) for name in self.module.chosen if name in compute}
        return {name: found[name] for name in self.module.outputs}

    def distribution(self, values: Sequence[np.ndarray]) -> Distribution:
        """
        Compute the action distribution.

        :param values: the inputs in order
        :return: the distribution
        """
        observations, states = self._observations(values), self._states(values)
        with th.no_grad(), own_distribution(self.policy, self._masks(values)) as policy:
            if states is None:
                return cast(Distribution, policy.get_distribution(observations))
            return cast(Distribution, policy.get_distribution(observations, states.pi, self._starts(values))[0])

    def _predicted(self, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Call ``predict``, and besides the critic's recurrent layer, of which ``predict`` knows nothing."""
        states, starts = self._states(values), self._array("episode_starts", values)
        given = None if states is None else tuple(part.numpy() for part in states.pi)
        with own_distribution(self.policy, self._masks(values)) as policy:
            actions, after = policy.predict(self._prepared(values), given, starts, deterministic=True)
        if states is None:
            return {"action": actions}
        critics = self._forward(values)[3].vf if states.vf else ()
        parts = [*after, *(part.numpy() for part in critics)]
        names = [each.name for each in self.module.inputs if each.field == "memory"]
        memory = {next_name(name): part.swapaxes(0, 1) for name, part in zip(names, parts, strict=True)}
        return {"action": actions, **memory}

    def _values(self, values: Sequence[np.ndarray]) -> th.Tensor:
        if self._states(values) is None:
            return cast(th.Tensor, self.policy.predict_values(self._observations(values)))
        return cast(th.Tensor, self._forward(values)[1])

    def _forward(self, values: Sequence[np.ndarray]) -> Any:
        """Run a policy with memory: actions, values, log-probabilities, and the memory after the step."""
        with th.no_grad():
            return self.policy(self._observations(values), self._states(values), self._starts(values), deterministic=True)

    def _prepared(self, values: Sequence[np.ndarray]) -> Any:
        """Prepare the observations for ``predict``."""
        named = zip(self.module.inputs, values, strict=True)
        return self.preparation.by_sb3({each.key: part for each, part in named if each.field == "observations"})

    def _observations(self, values: Sequence[np.ndarray]) -> Any:
        return self.policy.obs_to_tensor(self._prepared(values))[0]

    def _masks(self, values: Sequence[np.ndarray]) -> th.Tensor | None:
        masks = self._array("action_masks", values)
        return None if masks is None else read_masks(self.policy, masks)

    def _states(self, values: Sequence[np.ndarray]) -> RecurrentStates | None:
        """Find the memory before the step, as the policy takes it; that of the critic is empty unless it is asked."""
        parts: dict[bool, list[th.Tensor]] = {False: [], True: []}
        for each, part in zip(self.module.inputs, values, strict=True):
            if each.field == "memory":
                parts[is_of_critic(each)].append(th.as_tensor(part).transpose(0, 1).contiguous())
        return RecurrentStates(tuple(parts[False]), tuple(parts[True])) if parts[False] else None

    def _starts(self, values: Sequence[np.ndarray]) -> th.Tensor:
        return th.as_tensor(self._array("episode_starts", values))

    def _array(self, field: str, values: Sequence[np.ndarray]) -> np.ndarray | None:
        """Find the only input of a field."""
        return next((part for each, part in zip(self.module.inputs, values, strict=True) if each.field == field), None)

"""Notices that a callback changes a policy in the middle of a rollout."""

from collections.abc import Callable
from itertools import chain
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.originals import hooks_of


class PolicyWatch:
    """
    Tells, within a few microseconds, whether a policy still has the parts with which a rollout began.

    It sees another policy, another action distribution, a part or parameter that was replaced, a hook, and a method that was
    replaced in an object. It does not see what was changed in a class or for all of torch; the next rollout does. Weights that
    change in place are no change: they are read at every step.

    :param policy: the policy
    :param callback: the callback of the rollout; without one of the user's, nothing is watched
    """

    def __init__(self, policy: ActorCriticPolicy, callback: BaseCallback) -> None:
        self._policy = policy
        modules: list[nn.Module] = [] if _does_nothing(callback) else list(policy.modules())
        self._attributes = [*map(vars, modules), *([vars(policy.action_dist)] if modules else [])]
        self._hooks = [hooks for module in modules for hooks in hooks_of(module)]
        self._parts: list[dict[str, Any]] = [part for m in modules for part in (m._modules, m._parameters)]
        self._signature = self._full_signature if modules else self._short_signature
        self._before: object = self._signature()

    def changed(self, policy: ActorCriticPolicy) -> bool:
        """
        Tell whether the policy has changed.

        :param policy: the policy that the model has now
        :return: whether it has
        """
        return policy is not self._policy or self._signature() != self._before

    def _short_signature(self) -> int:
        return id(self._policy.action_dist)

    def _full_signature(self) -> tuple[Any, ...]:
        parts = chain.from_iterable(map(_VALUES, self._parts))
        sizes = list(map(len, self._attributes))
        sizes[-1] -= "distribution" in self._attributes[-1]  # the first prediction sets it, which is no change
        return any(self._hooks), id(self._policy.action_dist), list(map(id, parts)), sizes


_VALUES: Callable[[dict[str, Any]], Any] = dict.values


def _does_nothing(callback: BaseCallback) -> bool:
    """Tell whether this is what SB3 makes of ``callback=None``."""
    return type(callback) is ConvertCallback and callback.callback is None

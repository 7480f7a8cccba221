"""Notices that a callback changes a policy in the middle of a rollout."""

from collections.abc import Callable
from itertools import chain
from typing import Any

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    ProgressBarCallback,
)
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
    :param callback: the callback of the rollout; if it is known to leave the policy alone, nothing is watched
    """

    def __init__(self, policy: ActorCriticPolicy, callback: BaseCallback) -> None:
        self._policy = policy
        modules: list[nn.Module] = [] if _leaves_policy(callback) else list(policy.modules())
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


def _leaves_policy(callback: BaseCallback | None) -> bool:
    """Tell whether a callback and those that it holds are known not to change the policy."""
    cls = type(callback)
    if isinstance(callback, ConvertCallback):  # what SB3 makes of None, or of a function
        return cls is ConvertCallback and callback.callback is None
    if isinstance(callback, CallbackList):
        return cls is CallbackList and all(map(_leaves_policy, callback.callbacks))
    if isinstance(callback, EvalCallback):
        return cls is EvalCallback and _leaves_policy(callback.callback) and _leaves_policy(callback.callback_on_new_best)
    return callback is None or cls in (CheckpointCallback, ProgressBarCallback) or bool(vars(cls).get("leaves_policy"))

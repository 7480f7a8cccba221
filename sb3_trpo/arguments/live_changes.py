"""Finds attributes that were changed on a live model, although its parts had been made with other values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.checks import described

_LOAD = "save the model and load it with `{name}={value}`"
_ADVICE = {
    "policy_class": "make a new model",
    "policy_kwargs": "make a new model",
    "use_sde": "make a new model with `{name}={value}`",
    "rollout_buffer_class": _LOAD,
    "rollout_buffer_kwargs": _LOAD,
    "n_envs": "save the model and load it with an `env` of {value} environments",
    "device": _LOAD,
}
"""The arguments that policy and buffer are made with, by their attributes, and what to do to change them."""

_AS_MADE: dict[str, Callable[[Any], Any]] = {"device": get_device, "rollout_buffer_kwargs": lambda value: value or {}}
"""What SB3 makes of a value at construction."""


@dataclass
class InUse:
    """
    The values of attributes that a model uses, whatever the attributes have become since.

    :param fixed: the arguments that policy and buffer were made with, with copies of dicts and lists, which may be changed in
        place
    :param seed: the seed that the generators were seeded with
    :param env: the environments that SB3 has wrapped and checked
    :param learning_rate: what the schedule of the learning rate was made of
    """

    fixed: dict[str, Any]
    seed: int | None
    env: VecEnv | None
    learning_rate: Any

    @classmethod
    def of(cls, model: OnPolicyAlgorithm) -> InUse:
        """
        Read the attributes of a model that was just set up.

        :param model: the model
        :return: their values
        """
        fixed = {name: _copy(getattr(model, name)) for name in _ADVICE}
        return cls(fixed, model.seed, model.env, model.learning_rate)

    def refuse_changes(self, model: OnPolicyAlgorithm) -> None:
        """
        Refuse a model with a fixed argument changed: nothing would read the new value.

        :param model: the model
        :raises ValueError: naming the argument and its value, and saying how to change it
        """
        if isinstance(model.policy, (str, type)):
            raise ValueError(f"`policy` was set to {described(model.policy)} after the model was made; make a new model")
        for name, old in self.fixed.items():
            value = getattr(model, name)
            if not _same(_AS_MADE.get(name, _copy)(value), old):
                advice = _ADVICE[name].format(name=name, value=described(value) if name != "n_envs" else value)
                raise ValueError(
                    f"`{name}` was set to {described(value)} after the model was made with {described(old)}; {advice}"
                )


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return a is b or bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays compare element by element
        return False

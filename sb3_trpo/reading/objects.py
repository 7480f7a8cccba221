"""Rebuilds containers, schedules and running statistics from recipes."""

import sys
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo.reading.arrays import Build
from sb3_trpo.reading.pickles import Call, Name, NotRebuiltError

_NUMBER = int | float | np.integer | np.floating


class _Schedule(ABC):
    """The kinds of schedules that are rebuilt."""

    @abstractmethod
    def __call__(self, progress_remaining: float) -> float:
        """Return the value at some progress."""


for _kind in (ConstantSchedule, FloatSchedule, LinearSchedule):
    _Schedule.register(_kind)
_STATISTICS = (RunningMeanStd, dict)
_LAST = (np.ndarray, dict, type(None))
_ATTRIBUTES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "stable_baselines3.common.utils.ConstantSchedule": (ConstantSchedule, {"val": _NUMBER}),
    "stable_baselines3.common.utils.FloatSchedule": (FloatSchedule, {"value_schedule": _Schedule}),
    "stable_baselines3.common.utils.LinearSchedule": (
        LinearSchedule,
        dict.fromkeys(("start", "end", "end_fraction"), _NUMBER),
    ),
    "stable_baselines3.common.running_mean_std.RunningMeanStd": (
        RunningMeanStd,
        {"mean": np.ndarray | np.floating, "var": np.ndarray | np.floating, "count": _NUMBER},
    ),
    "stable_baselines3.common.vec_env.vec_normalize.VecNormalize": (
        VecNormalize,
        {
            **dict.fromkeys(("observation_space", "action_space"), spaces.Space),
            **dict.fromkeys(("norm_obs", "norm_reward", "training"), bool),
            **dict.fromkeys(("clip_obs", "clip_reward", "gamma", "epsilon"), _NUMBER),
            **dict.fromkeys(("old_obs", "old_reward"), _LAST),
            **{"norm_obs_keys": list | None, "obs_rms": _STATISTICS, "ret_rms": RunningMeanStd},
            **{"num_envs": int, "render_mode": str | None, "metadata": dict, "reset_infos": list},
            **{"obs_spaces": dict | None, "obs_keys": list | None, "_seeds": list, "_options": list, "waiting": bool},
        },
    ),
}
"""Classes whose objects are rebuilt from their attributes: names and types of all attributes that such an object has."""
_OPTIONAL = {
    VecNormalize: {"norm_obs_keys", "render_mode", "metadata", "reset_infos", "_seeds", "_options", "waiting", "old_obs"}
    | {"old_reward", "num_envs", "obs_spaces", "obs_keys"},
}


def attributes(call: Call, build: Build, types: Mapping[str, Any], optional: set[str]) -> dict[str, Any]:
    """
    Rebuild the attributes of an object.

    :param call: the making of the object
    :param build: rebuilds what is inside
    :param types: types of the attributes, by name
    :param optional: names of those that may be missing
    :return: the attributes by name
    :raises NotRebuiltError: if there are others, or one has another type
    """
    state = call.state if isinstance(call.state, dict) else {}
    if call.args or call.kwargs or not set(types) - optional <= set(state) <= set(types):
        wrong = sorted({*(set(state) - set(types)), *(set(types) - optional - set(state))} or {"arguments"})
        raise NotRebuiltError(f"a {call.path} has other attributes than usual: {wrong[0]!r}")
    values = {name: build(recipe) for name, recipe in state.items()}
    for name, value in values.items():
        if not isinstance(value, types[name]):
            raise NotRebuiltError(f"the attribute {name!r} of a {call.path} is a {type(value).__name__}")
    return values


def _maker(kind: type[Any], types: Mapping[str, Any]) -> Callable[[Call, Build], Any]:
    """Make the function that rebuilds the objects of one class."""

    def make(call: Call, build: Build) -> Any:
        values = attributes(call, build, types, _OPTIONAL.get(kind, set()))
        statistics = values.get("obs_rms")
        if isinstance(statistics, dict) and not all(isinstance(part, RunningMeanStd) for part in statistics.values()):
            raise NotRebuiltError("the attribute 'obs_rms' of a VecNormalize has parts that are no statistics")
        made = object.__new__(kind)
        vars(made).update(values)
        return made

    return make


def _moments(call: Call, build: Build) -> Any:
    """Rebuild the moments that an update of this package keeps."""
    values = attributes(call, build, {"n_rollouts": int, "mean": th.Tensor, "var": th.Tensor}, set())
    module = sys.modules.get("sb3_trpo.update.moments")
    if module is None:
        raise NotRebuiltError("`sb3_trpo` is not imported")
    made = module.RunningMoments()
    vars(made).update(values)
    return made


def _zoo_schedule(call: Call, build: Build) -> Any:
    """Rebuild RL Zoo's linear schedule, as SB3's where the Zoo is not imported."""
    (value,) = attributes(call, build, {"initial_value": _NUMBER}, set()).values()
    zoos = getattr(sys.modules.get("rl_zoo3.utils"), "SimpleLinearSchedule", None)
    if zoos is None:
        return LinearSchedule(value, 0.0, 1.0)
    _Schedule.register(zoos)
    return zoos(value)


def _recurrent_states(call: Call, build: Build) -> Any:
    """Rebuild the memory that sb3-contrib before 2.1 saved with a recurrent model."""
    parts = [build(argument) for argument in call.args]
    if len(parts) != 2 or not all(isinstance(part, tuple) and all(map(th.is_tensor, part)) for part in parts):
        raise NotRebuiltError("it has recurrent states that are no tensors")
    try:
        aliases = import_module("sb3_contrib.common.recurrent.type_aliases")
    except ImportError as error:
        raise NotRebuiltError("it needs sb3-contrib, which is not installed here") from error
    return aliases.RNNStates(*parts)


def _function(call: Call, build: Build) -> Any:
    """Rebuild the schedules that SB3 before 2.7 and RL Zoo wrote as functions, from the numbers that they keep."""
    state = call.state[1] if isinstance(call.state, tuple) and len(call.state) == 2 else {}
    module, function = (state.get("__module__"), state.get("__qualname__")) if isinstance(state, dict) else (None, None)
    name = Name(module, function).path if isinstance(module, str) and isinstance(function, str) else "without a name"
    if name not in _FUNCTIONS:
        raise NotRebuiltError(f"it contains the code of the function {name}")
    cells = state.get("__closure__")
    if not isinstance(cells, tuple) or not all(isinstance(c, Call) and c.path == _CELL and len(c.args) == 1 for c in cells):
        raise NotRebuiltError(f"the function {name} has no closure")
    values, make = [build(cell.args[0]) for cell in cells], _FUNCTIONS[name]
    if not all(isinstance(value, _NUMBER | _Schedule) for value in values):
        raise NotRebuiltError(f"the closure of {name} is not made of numbers")
    try:
        return make(*values)
    except TypeError as error:
        raise NotRebuiltError(f"the closure of {name} has another size") from error


FUNCTION_MAKERS = ("cloudpickle.cloudpickle._make_function", "types.FunctionType", "types.LambdaType")
"""What pickles call to make a function from its code."""
_CELL = "cloudpickle.cloudpickle._make_cell"
_UTILS = "stable_baselines3.common.utils"
_FUNCTIONS: dict[str, Callable[..., Any]] = {  # their free variables come in alphabetical order
    f"{_UTILS}.constant_fn.<locals>.func": lambda val: ConstantSchedule(val),
    f"{_UTILS}.get_linear_fn.<locals>.func": lambda end, end_fraction, start: LinearSchedule(start, end, end_fraction),
    f"{_UTILS}.get_schedule_fn.<locals>.<lambda>": lambda schedule: FloatSchedule(schedule),
    "rl_zoo3.utils.linear_schedule.<locals>.func": lambda initial_value: LinearSchedule(initial_value, 0.0, 1.0),
    "utils.utils.linear_schedule.<locals>.func": lambda initial_value: LinearSchedule(initial_value, 0.0, 1.0),
}


def _get_attribute(call: Call, build: Build) -> Any:
    """Rebuild the only attribute that a saved policy looks up: the schedule that it does not use."""
    owner = call.args[0] if len(call.args) == 2 else None
    if isinstance(owner, Name) and owner.path in _POLICIES and call.args[1] == "_dummy_schedule":
        return BasePolicy._dummy_schedule
    raise NotRebuiltError("it looks up an attribute")


_POLICIES = ("stable_baselines3.common.policies.BasePolicy", "stable_baselines3.common.policies.ActorCriticPolicy")


def _deque(call: Call, build: Build) -> deque[Any]:
    """Rebuild a deque."""
    start, *length = [build(argument) for argument in call.args] or [()]
    if not isinstance(start, list | tuple) or len(length) > 1 or not all(isinstance(n, int | None) for n in length):
        raise NotRebuiltError("it has a deque made in an unusual way")
    return deque([*start, *map(build, call.elements)], *length)


def _ordered_dict(call: Call, build: Build) -> OrderedDict[Any, Any]:
    """Rebuild an ordered dict; torch's state dicts have the versions of their modules as an attribute."""
    if call.args:
        raise NotRebuiltError("it has an OrderedDict made in an unusual way")
    made = OrderedDict((key, build(value)) for key, value in call.items)
    if call.state is not None:
        metadata = build(call.state.get("_metadata")) if isinstance(call.state, dict) and len(call.state) == 1 else None
        if not isinstance(metadata, OrderedDict):
            raise NotRebuiltError("it has an OrderedDict with attributes")
        vars(made)["_metadata"] = metadata
    return made


MAKERS: dict[str, Callable[[Call, Build], Any]] = {
    **{path: _maker(kind, types) for path, (kind, types) in _ATTRIBUTES.items()},
    "sb3_trpo.update.moments.RunningMoments": _moments,
    "rl_zoo3.utils.SimpleLinearSchedule": _zoo_schedule,
    "sb3_contrib.common.recurrent.type_aliases.RNNStates": _recurrent_states,
    **dict.fromkeys(FUNCTION_MAKERS, _function),
    "builtins.getattr": _get_attribute,
    "collections.deque": _deque,
    "collections.OrderedDict": _ordered_dict,
}
"""Functions that rebuild a call, by the name of the callee."""

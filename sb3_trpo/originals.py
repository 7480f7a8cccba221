"""Tells whether objects of Stable-Baselines3 and torch still run the code with which their classes were defined."""

from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch as th
from torch.nn.modules import module as torch_module

try:  # torch's own, which a later version may rename
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext

    _HOOKS = [vars(torch_module)[f"_global_{name}_hooks"] for name in ("forward", "forward_pre", "backward", "backward_pre")]
    _n_dispatch_modes = th._C._len_torch_dispatch_stack
    _KNOWN = True
except (ImportError, AttributeError, KeyError):  # pragma: no cover
    _KNOWN = False

_OF_TORCH = ("__call__", "__getattr__", "_call_impl", "_wrapped_call_impl", "forward", "log_prob", "rsample", "sample", "step")
"""Methods of torch's classes that compute something; the others do not matter here."""

_OTHER_NAMES = {"__call__": "Module._wrapped_call_impl", "forward": "_forward_unimplemented"}
"""Names of functions that torch defines under one name and assigns to another."""


def altered_method(values: Iterable[object]) -> str | None:
    """
    Find a method of some objects that is not the one with which their class was defined.

    It may have been replaced in an object, in its class or in a parent, also before this package was imported.

    :param values: objects; or classes of SB3, torch or this package
    :return: the first such method, with its owner, in words; None if there is none
    """
    owners: dict[type, None] = {}
    for value in values:
        cls = value if isinstance(value, type) else type(value)
        owners.update(dict.fromkeys(cls.__mro__))
        if isinstance(value, type):
            continue
        for name, attribute in vars(value).items():
            if callable(attribute) and hasattr(cls, name):
                return f"`{name}` of the {cls.__name__}"
    return next((found for owner in owners if (found := _altered_function(owner)) is not None), None)


def _altered_function(owner: type) -> str | None:
    """Find the first function of a class, without those of its parents, that has been replaced."""
    package = _package(owner.__module__)
    if package not in ("torch", "stable_baselines3", "sb3_trpo"):
        return None
    names: Iterable[str] = vars(owner)
    if package == "torch":
        names = [name for name in _OF_TORCH if name in vars(owner)]
    return next((f"`{name}` of {owner.__name__}" for name in names if not is_original(owner, name)), None)


def is_original(owner: Any, name: str) -> bool:
    """
    Tell whether a class or a module of SB3, torch or this package still has its own function under a name.

    :param owner: the class or module that defines the function
    :param name: name of its attribute
    :return: False if another function took its place; True if there never was a function
    """
    attribute = vars(owner)[name]
    if isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    elif isinstance(attribute, property):
        attribute = attribute.fget
    if isinstance(attribute, BuiltinFunctionType):
        return attribute.__name__ == name
    if not isinstance(attribute, FunctionType):  # classes are attributes too, such as a default
        return not callable(attribute) or isinstance(attribute, type)
    is_class = isinstance(owner, type)
    expected = f"{owner.__qualname__}.{name}" if is_class else name
    if attribute.__qualname__ not in (expected, _OTHER_NAMES.get(name)):
        return False
    package = _package(owner.__module__ if is_class else owner.__name__)
    function: Any = attribute
    while function is not None:  # torch wraps some of its own
        if _package(function.__globals__.get("__name__", "")) != package:
            return False
        function = getattr(function, "__wrapped__", None)
    return True


def hooks_of(module: th.nn.Module) -> tuple[dict[Any, Any], ...]:
    """
    Collect what torch calls before and after a module, forwards and backwards.

    :param module: the module
    :return: its live dicts of hooks, by the time at which they are called
    """
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def watched_globally() -> str | None:
    """
    Find what changes or observes torch's functions wherever they are called.

    :return: the first such hook or mode, in words; None if there is none
    """
    if not _KNOWN:
        return "this version of torch does not tell about its global hooks and modes"
    if any(_HOOKS):
        return "torch has global hooks on modules"
    modes: list[Any] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    if any(type(mode) is not DeviceContext for mode in modes) or _n_dispatch_modes():
        return "a mode of torch watches its functions"
    return None


def _package(module: str) -> str:
    return module.partition(".")[0]

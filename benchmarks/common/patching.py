"""Replace a function or a method during a measurement, and fail if it does not exist."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def resolve(name: str) -> tuple[Any, str]:
    """
    Find the owner of a function or a method.

    :param name: dotted, such as ``package.module.Class.method``
    :return: the module or class that defines it, and its own name there
    :raises LookupError: if there is none
    """
    *path, attribute = name.split(".")
    owner: Any = None
    for part in path:
        try:
            owner = getattr(owner, part) if owner is not None else importlib.import_module(part)
        except AttributeError:
            owner = _submodule(owner, part, name)
    if not callable(vars(owner).get(attribute)):
        raise LookupError(f"`{name}` has moved: {owner.__name__} does not define a function {attribute!r}")
    return owner, attribute


def _submodule(owner: Any, part: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{owner.__name__}.{part}")
    except ImportError as error:
        raise LookupError(f"`{name}` has moved: {owner.__name__} has no {part!r}") from error


@contextmanager
def replaced(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """
    Replace a function everywhere in its package, also where a module has imported it by name, or a method in its class.

    :param name: dotted, such as ``package.module.function``
    :param wrap: original -> replacement
    :raises LookupError: if there is no such function
    """
    owner, attribute = resolve(name)
    original = vars(owner)[attribute]
    places = [(owner, attribute)] if inspect.isclass(owner) else list(_bindings(original, name.split(".")[0]))
    replacement = wrap(original)
    for place, bound_name in places:
        setattr(place, bound_name, replacement)
    try:
        yield
    finally:
        for place, bound_name in places:
            setattr(place, bound_name, original)


def _bindings(function: Any, package: str) -> Iterator[tuple[ModuleType, str]]:
    """Find the global names of a package's modules that are bound to a function."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] == package:
            for name, value in list(vars(module).items()):
                if value is function:
                    yield module, name

"""Checks of single values. A rule is a test with a description of the values that it allows."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """
    A requirement on a value.

    :param allowed: the values allowed, in words
    :param test: tells whether a value is one of them
    """

    allowed: str
    test: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """
    Tell whether a value is a real number (NumPy scalars included, booleans excluded).

    :param value: anything
    :return: whether it is one
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: Any, low: int) -> bool:
    """
    Tell whether a value is an integer of at least ``low``.

    :param value: anything
    :param low: least value allowed
    :return: whether it is an integer of at least ``low``
    """
    return isinstance(value, Integral) and is_number(value) and int(value) >= low


def integer(low: int) -> Rule:
    """
    Make the rule that a value is an integer of at least ``low``.

    :param low: least value allowed
    :return: the rule
    """
    return Rule(f"an integer >= {low}", lambda v: is_integer(v, low))


def number(allowed: str, test: Callable[[float], bool]) -> Rule:
    """
    Make the rule that a value is a finite number in a range.

    :param allowed: the range, in words
    :param test: tells whether a finite number lies in the range
    :return: the rule
    """
    return Rule(f"a number {allowed}", lambda v: is_number(v) and math.isfinite(v) and test(v))


def optional(rule: Rule) -> Rule:
    """
    Extend a rule to allow None.

    :param rule: the rule for all other values
    :return: the extended rule
    """
    return Rule(f"None or {rule.allowed}", lambda v: v is None or rule.test(v))


UNIT = number("in [0, 1]", lambda v: 0.0 <= v <= 1.0)
POSITIVE = number("> 0", lambda v: v > 0.0)
NOT_NEGATIVE = number(">= 0", lambda v: v >= 0.0)
BOOLEAN = Rule("True or False", lambda v: isinstance(v, (bool, np.bool_)))


def described(value: Any) -> str:
    """
    Describe a value in a message.

    :param value: anything
    :return: the name of a class; "an instance of" its class for an object whose ``repr`` shows an address or several lines;
        the ``repr`` of anything else
    """
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    shown = repr(value)
    if " at 0x" in shown or "\n" in shown:
        return f"an instance of {type(value).__module__}.{type(value).__qualname__}"
    return shown


def check(name: str, value: Any, rule: Rule) -> None:
    """
    Refuse a value that breaks its rule.

    :param name: name of the argument
    :param value: its value
    :param rule: what is allowed
    :raises ValueError: naming the argument, its value and what is allowed
    """
    if not rule.test(value):
        raise ValueError(f"`{name}` must be {rule.allowed}, not {described(value)}")


def check_integers(low: int, **values: Any) -> None:
    """
    Refuse arguments that are not integers of at least ``low``.

    :param low: least value allowed
    :param values: arguments by name
    :raises ValueError: naming the first such argument
    """
    for name, value in values.items():
        check(name, value, integer(low))

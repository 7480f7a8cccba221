"""Checks of single values. A rule is a test with a description of the values that it allows."""

import math
import sys
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


def to_float(value: Any) -> float:
    """
    Convert a number to a float.

    :param value: anything
    :return: the float; NaN if the value is not a number, or is an integer or a fraction too large for a float
    """
    if not is_number(value):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def is_integer(value: Any, low: int, high: int = sys.maxsize) -> bool:
    """
    Tell whether a value is an integer in a range.

    :param value: anything
    :param low: least value allowed
    :param high: largest value allowed; by default the largest that counts and sizes can hold
    :return: whether it is an integer from ``low`` to ``high``
    """
    return isinstance(value, Integral) and is_number(value) and low <= int(value) <= high


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
    return Rule(f"a number {allowed}", lambda v: math.isfinite(to_float(v)) and test(to_float(v)))


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
SEED = optional(Rule("an integer in [0, 2**32 - 1]", lambda v: is_integer(v, 0, 2**32 - 1)))
"""The seeds that NumPy's global generator takes."""


def described(value: Any) -> str:
    """
    Describe a value in a message.

    :param value: anything
    :return: the name of a class; the size of an integer beyond 64 bits, whose digits would fill the message; "an instance of"
        its class for an object whose ``repr`` shows an address or several lines; the ``repr`` of anything else
    """
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, int) and abs(value) > sys.maxsize:
        return f"an integer of {value.bit_length()} bits, which is too large"
    try:
        shown = repr(value)
    except ValueError:  # Python does not write more than 4,300 digits
        return f"a {type(value).__name__} that is too large"
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

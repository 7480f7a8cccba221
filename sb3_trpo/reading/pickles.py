"""Reads pickles as recipes: what a pickle would look up and call is written down, and nothing is looked up or called."""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sb3_trpo.reading.text import printable


class NotRebuiltError(ValueError):
    """Reports a part of a file that cannot be rebuilt as plain data."""


_LONGEST_NAME = 200
_RENAMED = {"__builtin__.": "builtins.", "numpy.core.": "numpy._core.", "gym.spaces.": "gymnasium.spaces."}


@dataclass(eq=False)
class Name:
    """
    The name of a class or function that a pickle would import.

    :param module: name of the module
    :param name: name inside the module
    """

    module: str
    name: str

    @property
    def path(self) -> str:
        """Return the full name, safe to print; Python 2 and 3, NumPy 1 and 2, Gym and Gymnasium get the same names."""
        path = printable(f"{self.module}.{self.name}", _LONGEST_NAME)
        for old, new in _RENAMED.items():
            if path.startswith(old):
                return new + path.removeprefix(old)
        return path


@dataclass(eq=False)
class Call:
    """
    A call that a pickle would make, and what it would do with the result.

    :param callee: what it would call: a :class:`Name`, or the result of another call
    :param args: the arguments
    :param kwargs: the keyword arguments
    :param state: the attributes that it would set, or the argument of ``__setstate__``
    :param elements: the elements that it would append
    :param items: the pairs of keys and values that it would set
    """

    callee: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    items: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the full name of the callee; cloudpickle looks the types of functions and code up in ``types``."""
        if isinstance(self.callee, Name):
            return self.callee.path
        looked_up = self.callee.args if isinstance(self.callee, Call) and self.callee.path == _LOOK_UP else ()
        if len(looked_up) == 1 and isinstance(looked_up[0], str):
            return printable(f"types.{looked_up[0]}", _LONGEST_NAME)
        return "the result of another call"


@dataclass(eq=False)
class Stored:
    """
    A reference to something that is stored beside the pickle, such as the numbers of a tensor.

    :param key: what the pickle says of it
    """

    key: Any


SCALARS = (type(None), bool, int, float, str, bytes)
_LOOK_UP = "cloudpickle.cloudpickle._builtin_type"
_SET_STATE = ("cloudpickle.cloudpickle._function_setstate", "cloudpickle.cloudpickle_fast._function_setstate")
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(content: bytes) -> Any:
    """
    Read a pickle without importing or calling anything.

    :param content: the pickle
    :return: numbers, strings, bytes and containers, with :class:`Name`, :class:`Call` and :class:`Stored` inside
    :raises NotRebuiltError: if it is damaged, or uses what only a running program has
    """
    machine = _Machine()
    try:
        for opcode, argument, position in pickletools.genops(content):
            if opcode.name == "STOP":
                if position is not None and position + 1 != len(content):
                    raise NotRebuiltError("there are bytes after the end of the pickle")
                return machine.stack.pop()
            machine.run(opcode.name, argument)
    except NotRebuiltError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise NotRebuiltError(f"the pickle is damaged ({type(error).__name__}: {error})") from error
    raise NotRebuiltError("the pickle has no end")


class _Machine:
    """The stack and the memo of a pickle, without the power to import or call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """
        Run one opcode.

        :param opcode: its name
        :param argument: its argument
        :raises NotRebuiltError: if it needs a running program
        """
        if opcode in _VALUES:
            self.stack.append(_VALUES[opcode])
        elif opcode in _CONTAINERS:
            self.stack.append(_CONTAINERS[opcode]())
        elif opcode in _SIZES:
            size = _SIZES[opcode]
            if len(self.stack) < size:
                raise IndexError("the stack is too short")
            self.stack[-size:] = [tuple(self.stack[-size:])]
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif isinstance(argument, int | float | str | bytes | bytearray) and opcode not in _REFUSED:
            self.stack.append(argument)
        else:
            raise NotRebuiltError(f"it uses the opcode {opcode}, which needs a running program")

    def push(self, value: Any) -> None:
        """Push a value on the stack as it is then: computing the value may have replaced it."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Remove the values since the last mark, and return them."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def drop_group(self) -> None:
        """Drop the values since the last mark."""
        self.pop_mark()

    def mark(self, _: Any) -> None:
        """Begin a group of values."""
        self.below.append(self.stack)
        self.stack = []

    def append(self, values: list[Any]) -> None:
        """Append values to the list or call on the top."""
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Call) else target
        if not isinstance(elements, list):
            raise TypeError(f"{type(target).__name__} has no append")
        elements.extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Set pairs of keys and values in the dict or call on the top."""
        target = self.stack[-1]
        pairs = _pairs(values)
        if isinstance(target, Call):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise TypeError(f"{type(target).__name__} has no items")

    def add_items(self, _: Any) -> None:
        """Add values to the set on the top."""
        values = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise TypeError("no set")
        self.stack[-1].update(map(_scalar, values))

    def look_up(self, module: Any, name: Any) -> None:
        """Write down a name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no string")
        self.stack.append(Name(module, name))

    def stack_global(self, _: Any) -> None:
        """Write down the name on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.look_up(module, name)

    def call(self, callee: Any, args: Any, kwargs: Any = None) -> None:
        """Write down a call."""
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            raise TypeError("arguments that are no tuple")
        call = Call(callee, args, kwargs or {})
        if call.path in _SET_STATE and len(args) > 1 and isinstance(args[0], Call):
            args[0].state = args[1]  # cloudpickle's way to give a function its closure
        self.stack.append(call)

    def reduce(self, _: Any) -> None:
        """Write down a call with the tuple on the stack."""
        args, callee = self.stack.pop(), self.stack.pop()
        self.call(callee, args)

    def new_with_keywords(self, _: Any) -> None:
        """Write down the making of an object with keyword arguments."""
        kwargs, args, callee = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.call(callee, args, kwargs)

    def make(self, _: Any) -> None:
        """Write down the making of an object with the arguments since the mark."""
        callee, *args = self.pop_mark()
        self.call(callee, tuple(args))

    def make_named(self, argument: Any) -> None:
        """Write down the making of an object of a named class."""
        args = self.pop_mark()
        self.look_up(*argument.split(" ", 1))
        self.call(self.stack.pop(), tuple(args))

    def build(self, _: Any) -> None:
        """Write down a state."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call) or target.state is not None:
            raise NotRebuiltError("it sets the attributes of something that it has not just made")
        target.state = state

    def remember(self, index: Any) -> None:
        """Keep the value on the top in the memo."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: Any) -> None:
        """Push a value of the memo."""
        self.stack.append(self.memo[index])

    def pop(self, _: Any) -> None:
        """Drop the value on the top, or the mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()


def _scalar(key: Any) -> Any:
    """Return a key or an element of a set; a nested tuple could take for ever to hash."""
    if not isinstance(key, SCALARS):
        raise NotRebuiltError(f"a key is a {type(key).__name__}, not a number or a string")
    return key


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return [(_scalar(key), value) for key, value in zip(values[::2], values[1::2], strict=True)]


def _last_two(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.drop_group(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "DICT": lambda machine, _: machine.push(dict(_pairs(machine.pop_mark()))),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_scalar, machine.pop_mark()))),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(_last_two(machine)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": lambda machine, argument: machine.look_up(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "OBJ": _Machine.make,
    "INST": _Machine.make_named,
    "BUILD": _Machine.build,
    "PERSID": lambda machine, argument: machine.stack.append(Stored(argument)),
    "BINPERSID": lambda machine, _: machine.stack.append(Stored(machine.stack.pop())),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
}
"""The opcodes that need more than their argument."""


def parts(recipe: Any) -> Iterator[Any]:
    """
    Iterate over a recipe and everything inside it, each part once.

    :param recipe: a result of :func:`read_pickle`
    :return: the parts
    """
    waiting, seen = [recipe], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, SCALARS) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, Stored):
            waiting.append(part.key)
        elif isinstance(part, Call):
            waiting += [part.callee, part.args, part.kwargs, part.state, part.elements, [v for _, v in part.items]]

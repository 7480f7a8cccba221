"""Pickles of the state of a run: plain data and tensors, which can be read without running anything."""

import io
import pickle
import pickletools
import re
import uuid
from typing import Any, Literal

import numpy as np
import torch as th

from sb3_trpo.checks import described

_PLAIN = frozenset(
    [
        *(f"builtins.{name}" for name in ("set", "frozenset", "complex", "range", "slice", "bytearray", "int", "float")),
        *(f"builtins.{name}" for name in ("list", "dict", "tuple", "str", "bytes", "bool", "Ellipsis")),
        *(f"collections.{name}" for name in ("deque", "OrderedDict", "defaultdict", "Counter")),
        *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
        *(f"sb3_trpo.snapshots.{name}" for name in ("plain_data.GeneratorState", "mujoco_state.MujocoState")),
        *(f"sb3_trpo.snapshots.layer_attributes.{name}" for name in ("Stays", "AttributesState")),
        "sb3_trpo.snapshots.environments.EnvironmentsState",
        *(f"sb3_trpo.saving.callback_states.{name}" for name in ("CallbackState", "LoggerState")),
        *(f"sb3_trpo.saving.run_pickles.{name}" for name in ("array_of", "number_of", "type_of", "tensor_of")),
    ]
)
"""
Classes and functions that the state of a run may name: plain data, and this package's tuples of it. NumPy's own are not among
them, because they believe what a pickle says of memory: the type of an array, its pointers to objects.
"""

_ADVICE = "if the file is yours, pass `trusted=True`"
_NUMBERS = re.compile(r"[<>=|]?(?:[biufc]\d{1,2}|\?|[SU]\d{1,6}|[mM]8(?:\[\w{1,10}\])?)")


def type_of(code: str) -> np.dtype[Any]:
    """
    Make a type of numbers or strings, as a pickle of it says.

    :param code: NumPy's code of it
    :return: the type
    :raises ValueError: if it is another type, such as that of objects
    """
    if not _NUMBERS.fullmatch(code):
        raise ValueError(f"it has an array of type {code!r}; only numbers and strings are read")
    return np.dtype(code)


def array_of(content: bytes, code: str, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    """
    Make an array, as a pickle of it says.

    :param content: its numbers
    :param code: NumPy's code of their type
    :param shape: its shape
    :param order: order of the numbers
    :return: the array
    :raises ValueError: if the numbers do not have the shape, or another type than numbers and strings
    """
    if not isinstance(content, bytes):
        raise ValueError(f"it has an array that is made of {described(content)}, not of bytes")
    numbers = np.frombuffer(bytearray(content), type_of(code)) if content else np.empty(0, type_of(code))
    return numbers.reshape(shape, order=order)


def number_of(content: bytes, code: str) -> Any:
    """
    Make a number or string of NumPy, as a pickle of it says.

    :param content: its bytes
    :param code: NumPy's code of its type
    :return: the number
    :raises ValueError: if it has another size or type
    """
    return array_of(content, code, (), "C")[()] if type_of(code).itemsize else type_of(code).type()


def tensor_of(array: np.ndarray) -> th.Tensor:
    """
    Make a tensor, as a pickle of it says.

    :param array: its numbers
    :return: a tensor on the CPU, with the same shape and type
    """
    return th.from_numpy(array)


def write_state(state: Any) -> bytes:
    """
    Pickle the state of a run.

    :param state: plain data and tensors, which come back on the CPU
    :return: the pickle
    :raises Exception: if a value cannot be pickled
    """
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(state)
    return file.getvalue()


def read_state(content: bytes, trusted: bool = False) -> Any:
    """
    Read the state of a run.

    :param content: a result of :func:`write_state`
    :param trusted: whether the pickle may name anything, and so run code
    :return: the state
    :raises UnpicklingError: if it holds anything but plain data and tensors and is not trusted
    :raises ValueError: if it is damaged and not trusted
    """
    if trusted:
        return pickle.loads(content)
    try:
        if any(opcode.name == "BUILD" for opcode, *_ in pickletools.genops(content)):
            raise pickle.UnpicklingError(f"it sets the attributes of an object, as no plain data does; {_ADVICE}")
        return _Unpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # of any class, for values that one refuses
        raise ValueError(f"its state is damaged ({type(error).__name__}: {error})") from error


def is_readable(value: Any) -> bool:
    """
    Tell whether a value can be written, and then be read without trust.

    :param value: any value
    :return: whether it can
    """
    try:
        _Unpickler(io.BytesIO(write_state(value))).load()  # plain data sets no attributes, and to check that takes longer
    except Exception:  # pickling may run any code, which may raise anything
        return False
    return True


class _Pickler(pickle.Pickler):
    """Writes tensors, arrays and numbers as their bytes, because reading NumPy's and torch's own forms is not safe."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, th.Tensor):
            return tensor_of, (obj.detach().cpu().numpy(),)
        if isinstance(obj, uuid.UUID):
            return uuid.UUID, (str(obj),)
        code = getattr(obj, "dtype", obj)
        if not (isinstance(code, np.dtype) and _NUMBERS.fullmatch(code.str)):
            return NotImplemented
        if type(obj) is np.ndarray:
            order: Literal["C", "F"] = "F" if obj.flags.fnc else "C"
            return array_of, (obj.tobytes(order), code.str, obj.shape, order)
        if isinstance(obj, np.generic):
            return number_of, (obj.tobytes(), code.str)
        return (type_of, (code.str,)) if obj is code else NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads a state, of which nothing runs."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _PLAIN:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is no plain data; {_ADVICE}")
        return super().find_class(module, name)

"""Pickles of the state of a run: plain data and tensors, which can be read without running anything."""

import io
import pickle
from typing import Any

import numpy as np
import torch as th

_PLAIN = frozenset(
    [
        *(f"builtins.{name}" for name in ("set", "frozenset", "complex", "range", "slice", "bytearray", "int", "float")),
        *(f"builtins.{name}" for name in ("list", "dict", "tuple", "str", "bytes", "bool", "Ellipsis")),
        *(f"collections.{name}" for name in ("deque", "OrderedDict", "defaultdict", "Counter")),
        *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "uuid.SafeUUID", "_codecs.encode"),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", "core.multiarray._reconstruct", "core.multiarray.scalar")),
        *(f"numpy._core.{name}" for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")),
        *(f"sb3_trpo.snapshots.{name}" for name in ("plain_data.GeneratorState", "mujoco_state.MujocoState")),
        *(f"sb3_trpo.snapshots.layer_attributes.{name}" for name in ("Stays", "AttributesState")),
        "sb3_trpo.snapshots.environments.EnvironmentsState",
        *(f"sb3_trpo.saving.callback_states.{name}" for name in ("CallbackState", "LoggerState")),
        "sb3_trpo.saving.run_pickles.tensor_of",
    ]
)
"""Classes and functions that the state of a run may name: plain data, and this package's tuples of it."""


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
    """
    return (pickle.Unpickler if trusted else _Unpickler)(io.BytesIO(content)).load()


def is_readable(value: Any) -> bool:
    """
    Tell whether a value can be written, and then be read without trust.

    :param value: any value
    :return: whether it can
    """
    try:
        read_state(write_state(value))
    except Exception:  # pickling may run any code, which may raise anything
        return False
    return True


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays, because reading torch's own form runs torch's code."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, th.Tensor):
            return tensor_of, (obj.detach().cpu().numpy(),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads a state, of which nothing runs."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _PLAIN:
            raise pickle.UnpicklingError(
                f"it holds a {module}.{name}, which is no plain data; if the file is yours, pass `trusted=True`"
            )
        return super().find_class(module, name)

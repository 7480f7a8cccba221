"""Rebuilds NumPy's and torch's values from recipes: numbers, arrays, random generators, tensors."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

from sb3_trpo.reading.pickles import Call, Name, NotRebuiltError, Stored
from sb3_trpo.reading.weights import read_weights

Build = Callable[[Any], Any]
"""Rebuilds what is inside a recipe."""

_DTYPE = re.compile(r"[<>=|]?(?:[biufc]\d{1,2}|\?|[SU]\d{1,6})")
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_STORAGES = {
    "BoolStorage": th.bool,
    "ByteStorage": th.uint8,
    "CharStorage": th.int8,
    "ShortStorage": th.int16,
    "IntStorage": th.int32,
    "LongStorage": th.int64,
    "HalfStorage": th.float16,
    "BFloat16Storage": th.bfloat16,
    "FloatStorage": th.float32,
    "DoubleStorage": th.float64,
}


def _arguments(call: Call, build: Build, *kinds: Any) -> list[Any]:
    """Rebuild the arguments of a call, and check their types."""
    args = [build(argument) for argument in call.args]
    if len(args) != len(kinds) or call.kwargs or not all(map(isinstance, args, kinds)):
        raise NotRebuiltError(f"{call.path} has other arguments than usual")
    return args


def _bytes(call: Call, build: Build) -> bytes:
    """Rebuild bytes that an old protocol writes as a string."""
    text, encoding = _arguments(call, build, str, str)
    if encoding not in ("latin1", "latin-1"):
        raise NotRebuiltError(f"bytes are encoded as {encoding!r}")
    return bytes(text, "latin-1")


def _no_bytes(call: Call, build: Build) -> bytes:
    """Rebuild what an old protocol writes for no bytes at all."""
    _arguments(call, build)
    return b""


def _byte_array(call: Call, build: Build) -> bytearray:
    """Rebuild a ``bytearray``; a number as argument could ask for any amount of memory."""
    return bytearray(_arguments(call, build, bytes)[0])


def _dtype(call: Call, build: Build) -> np.dtype[Any]:
    """Rebuild a type of numbers; those of objects and records are refused."""
    code, *_ = _arguments(call, build, str, int, int)
    if not _DTYPE.fullmatch(code):
        raise NotRebuiltError(f"it has an array of type {code!r}; only numbers and strings are read")
    dtype: np.dtype[Any] = np.dtype(code)
    state = build(call.state)
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    return dtype.newbyteorder(">") if order == ">" else dtype  # "<" is this machine's, and "|" that of single bytes


def _array_of(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Make an array of bytes, if there are as many as its shape says."""
    if not (isinstance(content, bytes | bytearray) and isinstance(dtype, np.dtype) and order in ("C", "F")):
        raise NotRebuiltError("it has an array that is not made of bytes, such as an array of objects")
    if not (isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape) and len(shape) <= 32):
        raise NotRebuiltError("it has an array without a proper shape")
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
        raise NotRebuiltError(f"it has an array of {len(content)} bytes, which do not fit {shape} numbers of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order=order).copy(order="K")


def _from_buffer(call: Call, build: Build) -> np.ndarray:
    """Rebuild an array that protocol 5 has written; one with axes in another order names their order."""
    if len(call.args) < 5:
        return _array_of(*_arguments(call, build, bytes | bytearray, np.dtype, tuple, str))
    content, dtype, shape, order, axes = _arguments(call, build, bytes | bytearray, np.dtype, tuple, str, tuple | None)
    if axes is None or order != "K":
        return _array_of(content, dtype, shape, order)
    return _array_of(content, dtype, shape, "C").transpose(axes)


def _reconstruct(call: Call, build: Build) -> np.ndarray:
    """Rebuild an array that an older protocol has written."""
    kind = call.args[0] if call.args else None
    state = build(call.state)
    if not (isinstance(kind, Name) and kind.path == "numpy.ndarray" and isinstance(state, tuple) and len(state) == 5):
        raise NotRebuiltError("it has an array of an unusual class or state")
    _, shape, dtype, fortran, content = state
    return _array_of(content, dtype, shape, "F" if fortran else "C")


def _scalar(call: Call, build: Build) -> Any:
    """Rebuild a NumPy number."""
    dtype, content = _arguments(call, build, np.dtype, bytes)
    return _array_of(content, dtype, (), "C")[()]


def _bit_generator(call: Call, build: Build) -> Any:
    """Rebuild the source of a random generator, in its saved state."""
    kind = call.args[0] if call.args else None
    name = kind.name if isinstance(kind, Name) else kind
    state = build(call.state)
    state = state[0] if isinstance(state, tuple) and state else state
    if name not in _BIT_GENERATORS or not (state is None or isinstance(state, dict)):
        raise NotRebuiltError("it has a random generator of an unknown kind")
    source = getattr(np.random, name)()
    if state is not None:
        try:
            source.state = state
        except Exception as error:
            raise NotRebuiltError(f"it has a random generator in a state that {name} refuses ({error})") from error
    return source


def _generator(call: Call, build: Build) -> np.random.Generator:
    """Rebuild a random generator; NumPy 1 writes the state of its source beside it."""
    source = call.args[0] if call.args else None
    if not isinstance(source, Call):
        source = Call(Name("numpy.random._pickle", "__bit_generator_ctor"), (source,), state=call.state)
    if source.path != "numpy.random._pickle.__bit_generator_ctor":
        raise NotRebuiltError("it has a random generator of an unknown kind")
    return np.random.Generator(build(source))


def _storage(call: Call, build: Build) -> th.Tensor:
    """Rebuild the numbers of a tensor that was pickled outside ``torch.save``; torch reads them without any code."""
    (content,) = _arguments(call, build, bytes)
    try:
        storage = read_weights(content)
        return th.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
    except Exception as error:
        raise NotRebuiltError(f"torch refuses a tensor in it ({error})") from error


def stored_tensor(stored: Stored, read: Callable[[str], bytes]) -> th.Tensor:
    """
    Read the numbers of a tensor of a torch file.

    :param stored: the reference of the pickle
    :param read: gives the content of an entry of the file
    :return: the numbers, shape (n,)
    :raises NotRebuiltError: if it refers to anything else
    """
    key = stored.key
    if not (isinstance(key, tuple) and len(key) == 5 and key[0] == "storage" and isinstance(key[1], Name)):
        raise NotRebuiltError("it refers to something that is no tensor")
    kind, entry, size = key[1], key[2], key[4]
    if kind.module != "torch" or kind.name not in _STORAGES or not isinstance(entry, str):
        raise NotRebuiltError(f"it has a tensor of the unknown type {kind.path}")
    content, dtype = bytearray(read(f"data/{entry}")), _STORAGES[kind.name]
    if not isinstance(size, int) or len(content) != size * dtype.itemsize:
        raise NotRebuiltError(f"the {len(content)} bytes of a tensor are not {size} numbers of {dtype}")
    return th.frombuffer(content, dtype=dtype) if content else th.empty(0, dtype=dtype)


def _tensor(call: Call, build: Build) -> th.Tensor:
    """Rebuild a tensor from its numbers, offset, shape and strides."""
    hooks = call.args[5] if len(call.args) > 5 else None
    if not (isinstance(hooks, Call) and hooks.path == "collections.OrderedDict" and not hooks.items and not hooks.args):
        raise NotRebuiltError("it has a tensor with hooks")
    numbers, offset, shape, strides, gradient = map(build, call.args[:5])
    whole = [offset, *shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [None]
    if not all(type(number) is int and number >= 0 for number in whole) or len(shape) != len(strides):
        raise NotRebuiltError("it has a tensor without a proper shape")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if not isinstance(numbers, th.Tensor) or size > numbers.numel() or (size and last >= numbers.numel()):
        raise NotRebuiltError("it has a tensor that reaches beyond its numbers")
    return numbers.as_strided(shape, strides, offset).clone().requires_grad_(bool(gradient))


MAKERS: dict[str, Callable[[Call, Build], Any]] = {
    "_codecs.encode": _bytes,
    "builtins.bytes": _no_bytes,
    "builtins.bytearray": _byte_array,
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.random._pickle.__generator_ctor": _generator,
    "numpy.random._pickle.__bit_generator_ctor": _bit_generator,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": lambda call, build: None,  # the state says it all
    "numpy.random._pickle.__randomstate_ctor": lambda call, build: None,  # Gym's; a space makes its own generator
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
}
"""Functions that rebuild a call, by the name of the callee."""

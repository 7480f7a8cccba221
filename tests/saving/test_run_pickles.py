"""The state of a run is written and read as it is, and a hostile one changes nothing in the program."""

import datetime
import decimal
import fractions
import pickle
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo.saving.run_pickles import array_of, is_readable, read_state, write_state
from sb3_trpo.snapshots.plain_data import GeneratorState, thaw

PLAIN = [
    *(None, ..., slice(1, 2), range(3), 1 + 2j, bytearray(b"x"), {1, 2}, frozenset([3])),
    *(Counter({np.int64(3): 2, (1, 2): 1}), OrderedDict(a=1), defaultdict(list, {1: [2]}), deque([1], maxlen=2)),
    *(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), decimal.Decimal("1.5"), fractions.Fraction(1, 3)),
    *(uuid.UUID(int=7), GeneratorState("kind", (1, 2)), np.dtype("f4"), np.dtype("M8[ns]")),
    *(np.float64(1.5), np.bool_(True), np.str_("ab"), np.str_(""), np.bytes_(b"x"), np.datetime64("2026-01-01")),
]
ARRAYS = [
    *(np.arange(6.0).reshape(2, 3).T, np.arange(12)[::2], np.zeros((0, 3)), np.array(3), np.array(["ab", "c"])),
    *(np.array([1, 2], ">i4"), np.array([True]), np.array(["2026-01-01"], "M8[D]"), np.zeros(2, np.float16)),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_is_read_as_it_was_written(value: Any) -> None:
    read = read_state(write_state([value, value]))
    assert read[0] == value
    assert type(read[0]) is type(value)
    assert read[0] is read[1]
    assert is_readable(value)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_keep_their_type_and_order(array: np.ndarray) -> None:
    read = read_state(write_state({"it": array}))["it"]
    assert np.array_equal(read, array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert read.flags.fnc == array.flags.fnc
    assert read.flags.writeable


def test_tensors_come_back_on_the_cpu() -> None:
    for tensor in (th.arange(6.0).reshape(2, 3).t(), th.tensor(1.0), th.zeros(0), th.tensor([True])):
        assert th.equal(read_state(write_state(tensor)), tensor)


class Own:
    """An object that is no plain data."""

    def __init__(self) -> None:
        self.attribute = 1


OTHERS = [Own(), Own, np.array([None]), np.array([(1,)], [("a", "i4")]), np.void(b"abc"), np.ma.array([1]), np.float32]


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_other_values_need_trust(value: Any) -> None:
    content = write_state(value)
    with pytest.raises(pickle.UnpicklingError, match="if the file is yours, pass `trusted=True`"):
        read_state(content)
    assert isinstance(read_state(content, trusted=True), type(value))
    assert not is_readable(value)


class Making:
    """Is pickled as a call, with attributes to set on the result."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


def of_a_class(attributes: dict[str, Any]) -> bytes:
    """A pickle that sets attributes of a class that it may name."""
    return pickle.dumps(GeneratorState)[:-1] + pickle.dumps((None, attributes), protocol=0)[:-1] + b"b."


HOSTILE: dict[str, bytes] = {
    "an array of pointers": pickle.dumps(Making(np.ndarray, (1,), "O", b"AAAAAAAA")),
    "a type that calls numbers pointers": pickle.dumps(
        Making(np.dtype, "i8", False, True, state=(3, "<", None, None, None, -1, -1, 63))
    ),
    "an attribute of a class": of_a_class({"kind": "owned"}),
    "cut off": write_state([1, 2])[:-1],
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_states_are_refused(name: str) -> None:
    kind = GeneratorState.kind
    with pytest.raises((pickle.UnpicklingError, ValueError), match=r"plain data|damaged"):
        read_state(HOSTILE[name])
    assert GeneratorState.kind is kind


@pytest.mark.parametrize(
    "arguments", [(b"\0" * 8, "O", (1,), "C"), (8, "u1", (8,), "C"), (b"\0" * 8, "f8", (2,), "C"), (b"", "S0", (9,), "C")]
)
def test_arrays_are_made_of_numbers_that_are_there(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="its state is damaged"):
        read_state(pickle.dumps(Making(array_of, *arguments)))


@pytest.mark.parametrize("kind", ["numpy.Generator", "numpy.RandomState"])
def test_a_state_calls_only_sources_of_random_bits(kind: str) -> None:
    """``numpy.random.test`` would run NumPy's tests."""
    with pytest.raises(ValueError, match="a random generator has a state of the unknown kind 'test'"):
        thaw(GeneratorState(kind, {"bit_generator": "test"}))

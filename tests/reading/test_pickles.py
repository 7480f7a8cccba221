"""A pickle is read as a recipe: nothing that it names is imported or called."""

import collections
import pickle
import pickletools
import sys
from typing import Any

import numpy as np
import pytest

from sb3_trpo.reading.pickles import Call, Name, NotRebuiltError, parts, read_pickle

PLAIN: list[Any] = [
    None,
    [True, False, 0, 1, 255, 256, 2**40, -(2**70), 1.5, float("inf"), "ä", b"\x00\xff", ""],
    {"a": [1, (2,), (3, 4), (5, 6, 7), (8, 9, 10, 11)], 3: {"b": {}}, None: []},
    {1, 2},
    frozenset({"x"}),
    (),
    bytearray(b"abc"),
    list(range(2000)),
    {n: str(n) for n in range(2000)},
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_values_are_read_as_pickle_reads_them(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    read = read_pickle(content)
    if any(isinstance(part, Call) for part in parts(read)):  # old protocols write sets and bytes as calls
        assert protocol < 5
    else:
        assert read == value
        assert type(read) is type(value)


def test_what_is_shared_stays_shared() -> None:
    inner = [1]
    read = read_pickle(pickle.dumps([inner, inner]))
    assert read[0] is read[1]


def test_calls_are_written_down() -> None:
    read = read_pickle(pickle.dumps(collections.deque([1, 2], 5)))
    assert (read.path, read.args, read.elements) == ("collections.deque", ((), 5), [1, 2])
    read = read_pickle(pickle.dumps(np.float32))
    assert (type(read), read.path) == (Name, "numpy.float32")
    read = read_pickle(pickle.dumps(collections.OrderedDict(a=1)))
    assert (read.path, read.items) == ("collections.OrderedDict", [("a", 1)])


def test_nothing_is_imported() -> None:
    assert "antigravity" not in sys.modules
    assert read_pickle(b"cantigravity\nfly\n.").path == "antigravity.fly"
    assert read_pickle(b"(S'x'\niantigravity\nfly\n.").path == "antigravity.fly"
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_1_and_2_have_the_same_names(module: str) -> None:
    assert Name(module, "scalar").path == "numpy._core.multiarray.scalar"


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "damaged"),
    "no end": (pickle.dumps([1])[:-1], "damaged"),
    "cut off": (pickle.dumps("x" * 100)[:50], "damaged"),
    "more after the end": (pickle.dumps(1) + b"N.", "bytes after the end"),
    "no such opcode": (b"\xff.", "damaged"),
    "empty stack": (b".", "damaged"),
    "stack too short": (b"N\x86.", "damaged"),
    "no such memo": (b"h\x07.", "damaged"),
    "no mark": (b"Nt.", "damaged"),
    "append to a number": (b"K\x01Na.", "damaged"),
    "odd pairs": (b"}(K\x01u.", "damaged"),
    "extension registry": (b"\x82\x01.", "EXT1"),
    "buffer outside": (b"\x97.", "NEXT_BUFFER"),
    "a name that is no string": (b"K\x01K\x02\x93.", "damaged"),
    "arguments that are no tuple": (b"cos\nsystem\nK\x01R.", "damaged"),
    "state of a list": (b"]}b.", "has not just made"),
    "state of a name": (b"ccollections\ndeque\n}b.", "has not just made"),
    "two states": (b"ccollections\ndeque\n)R}b}b.", "has not just made"),
    "a tuple as key": (pickle.dumps({(1, 2): 3}), "a key is a tuple"),
    "a call in a set": (b"\x8f(ccollections\ndeque\n)R\x90.", "a key is a Call"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pickles_are_refused(case: str) -> None:
    content, message = BAD[case]
    with pytest.raises(NotRebuiltError, match=message):
        read_pickle(content)


def test_a_key_that_takes_for_ever_to_hash_is_refused() -> None:
    with pytest.raises(NotRebuiltError, match="a key is a tuple"):
        read_pickle(b"}" + b"K\x01" + b"2\x86" * 200 + b"Ns.")


def test_a_huge_memo_index_costs_nothing() -> None:
    assert read_pickle(b"Nr\xff\xff\xff\x7f.") is None


def test_every_opcode_is_known() -> None:
    """An opcode of a newer Python must not be taken for a value."""
    taken = {opcode.name for opcode in pickletools.opcodes if opcode.arg is not None}
    assert "BYTEARRAY8" in taken
    assert len(pickletools.opcodes) == 68

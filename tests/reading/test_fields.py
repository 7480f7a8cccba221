"""The attributes of a saved model are read as JSON and rebuilt."""

import collections
import json

import pytest
from stable_baselines3.common.save_util import data_to_json

from sb3_trpo.reading.fields import is_pickled, read_fields, rebuild_field
from sb3_trpo.reading.pickles import NotRebuiltError


def test_what_sb3_writes_is_read() -> None:
    data = {"gamma": 0.99, "text": "ä", "none": None, "queue": collections.deque([1], 2), "nested": {"a": [1, {"b": 2}]}}
    saved = read_fields(data_to_json(data).encode())
    assert {name: is_pickled(field) for name, field in saved.items()} == {name: name == "queue" for name in data}
    assert {name: rebuild_field(field) for name, field in saved.items()} == data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"a": 1, "a": 2}', r"is not JSON \(the name 'a' is there twice\)"),
        (b'{"a": {"b": 1, "b": 2}}', "the name 'b' is there twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "is not JSON"),
    ],
)
def test_bad_json_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_fields(content)


@pytest.mark.parametrize("pickled", ["?", "", 3, None, "gASVLg=="])
def test_bad_pickles_are_refused(pickled: object) -> None:
    with pytest.raises(NotRebuiltError):
        rebuild_field(json.loads(json.dumps({":serialized:": pickled})))

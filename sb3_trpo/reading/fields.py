"""Reads the attributes of a saved model: JSON, in which some are pickles."""

import base64
import json
from typing import Any

from sb3_trpo.reading.pickles import NotRebuiltError, read_pickle
from sb3_trpo.reading.rebuild import rebuild

_PICKLE = ":serialized:"


def read_fields(content: bytes) -> dict[str, Any]:
    """
    Read the attributes of a saved model as JSON.

    :param content: the entry ``data``
    :return: the attributes by name; pickled ones as they are in the file
    :raises ValueError: if it is not a JSON object, has a name twice, or is nested too deeply
    """
    try:
        data = json.loads(content, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("its entry 'data' is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"its entry 'data' is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError("its entry 'data' is not a JSON object")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse names that are there twice: readers differ in which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is there twice")
    return found


def is_pickled(saved: Any) -> bool:
    """
    Tell whether an attribute is pickled.

    :param saved: the attribute, as in the file
    :return: whether it is
    """
    return isinstance(saved, dict) and _PICKLE in saved


def field_recipe(saved: Any) -> Any:
    """
    Read the pickle of an attribute without running it.

    :param saved: the attribute, as in the file
    :return: its recipe; the attribute itself if it is not pickled
    :raises NotRebuiltError: if the pickle is damaged
    """
    if not is_pickled(saved):
        return saved
    try:
        content = base64.b64decode(saved[_PICKLE])
    except (ValueError, TypeError) as error:
        raise NotRebuiltError(f"its pickle is not in base64 ({error})") from error
    return read_pickle(content)


def rebuild_field(saved: Any) -> Any:
    """
    Rebuild an attribute without running what is in the file.

    :param saved: the attribute, as in the file
    :return: its value
    :raises NotRebuiltError: if there is something in it that cannot be rebuilt
    """
    return rebuild(field_recipe(saved)) if is_pickled(saved) else saved

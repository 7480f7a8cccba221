"""Makes plain copies of saved models, which SB3 can load without running anything of the file."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces

from sb3_trpo.reading.archives import DamagedError, read_entries, rewritten
from sb3_trpo.reading.fields import read_fields, rebuild_field
from sb3_trpo.reading.pickles import NotRebuiltError
from sb3_trpo.reading.text import printable
from sb3_trpo.reading.weights import read_weights

_NEEDED: dict[str, Any] = {
    "policy_class": type | str,
    "policy_kwargs": dict,
    "observation_space": spaces.Space,
    "action_space": spaces.Space,
}
"""Attributes without which a model cannot predict, with their types."""

_MADE_ANEW = ("lr_schedule",)
"""Attributes that are made from others after loading."""

_ENTRY = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*\.pth")
_TEXTS = ("_stable_baselines3_version", "system_info.txt")
_VARIABLES = ("pytorch_variables.pth", "tensors.pth")


class PlainCopy(NamedTuple):
    """
    A saved model without pickles.

    :param file: the zip file in memory: names of attributes without their values, and weights
    :param values: the attributes by name, for ``custom_objects`` of SB3's ``load``
    """

    file: io.BytesIO
    values: dict[str, Any]


def read_model(file: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """
    Read a saved model without running anything of it, and check the sums of its entries.

    :param file: the file, open for reading
    :return: the contents of the entries, and the attributes as JSON, pickled ones as they are
    :raises ValueError: if it is damaged or no saved model
    """
    entries = read_entries(file)
    check_entry_names(entries)
    return entries, read_fields(entries["data"])


def check_entry_names(names: Container[str]) -> None:
    """
    Check that a file has the entries of a saved model.

    :param names: names of its entries
    :raises ValueError: if one is missing
    """
    missing = [name for name in ("data", "policy.pth") if name not in names]
    if missing:
        raise ValueError(f"it has no entry {missing[0]!r}")


def plain_copy(
    entries: dict[str, bytes],
    saved: dict[str, Any],
    cls: type[Any],
    custom_objects: dict[str, Any] | None = None,
    unused: Container[str] = (),
) -> PlainCopy:
    """
    Rebuild the attributes of a saved model, and copy its weights. Warn of attributes that are left out.

    :param entries: the contents of the file's entries
    :param saved: the attributes as JSON
    :param cls: the class that will load the copy
    :param custom_objects: objects that replace those of the file
    :param unused: names of attributes that are left out without a warning
    :return: the copy
    :raises ValueError: if an attribute that a model needs cannot be rebuilt, if one would replace a method, or if the weights
        break a rule
    """
    given, values = custom_objects or {}, {}
    for name, field in saved.items():
        if name in given:
            values[name] = given[name]
            continue
        try:
            values[name] = _rebuilt(name, field, cls)
        except NotRebuiltError as error:
            _report(name, error, unused)
    return PlainCopy(_weights(entries, values), values)


def _rebuilt(name: str, field: Any, cls: type[Any]) -> Any:
    """Rebuild an attribute, and check that it may be one."""
    if name == "env":
        raise NotRebuiltError("making an environment runs code: pass `env` to `load`")
    if not name.isidentifier() or name.startswith("__") or callable(getattr(cls, name, None)) or name in _never_saved(cls):
        shown = printable(name, 100)
        message = f"its attribute `{shown}` is no attribute of a model: it would replace a part of {cls.__name__}"
        raise ValueError(f"{message}; if you trust whoever made the file, pass `trusted=True`")
    value = rebuild_field(field)
    if name in _NEEDED and not isinstance(value, _NEEDED[name]):
        raise ValueError(f"its attribute `{name}` is a {type(value).__name__}")
    return value


def _never_saved(cls: type[Any]) -> set[str]:
    """Name the attributes of a class that its own files do not have."""
    return {"policy_aliases", *getattr(cls, "attributes_of_learn", ())}


def _report(name: str, error: NotRebuiltError, unused: Container[str]) -> None:
    """Refuse the file if the model needs an attribute; otherwise warn that it is left out."""
    message = f"`{name}` in the file cannot be rebuilt without running code of the file: {error}."
    advice = f"`custom_objects={{{name!r}: …}}` or, if you trust whoever made the file, `trusted=True`"
    if name in _NEEDED:
        raise ValueError(f"{message} The model needs it: pass {advice}.") from error
    if name not in _MADE_ANEW and name not in unused:
        warnings.warn(f"{message} It is left out; for the saved one, pass {advice}.", UserWarning, stacklevel=6)


def _weights(entries: dict[str, bytes], names: Iterable[str]) -> io.BytesIO:
    """Copy the weights and texts of a file into a new one, with the names of its attributes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as copy:
        copy.writestr("data", json.dumps(dict.fromkeys(names)))
        for name, content in entries.items():
            if name.endswith(".pth"):
                copy.writestr(name, _checked_weights(name, content))
            elif name in _TEXTS:
                copy.writestr(name, printable(content.decode(errors="replace")))
    file.seek(0)
    return file


def _checked_weights(name: str, content: bytes) -> bytes:
    """
    Check the entry of a state dict or of the other variables of torch, before SB3 looks their names up in the model.

    :param name: name of the entry
    :param content: its content
    :return: the content for torch
    :raises DamagedError: if it is a damaged zip file
    :raises ValueError: if it breaks a rule
    """
    if not _ENTRY.fullmatch(name):
        raise ValueError(f"the name of its entry {name!r} is not that of a part of a model")
    try:
        content = rewritten(content)
    except DamagedError as error:
        raise DamagedError(f"torch cannot read {name!r} ({error})") from error
    except ValueError as error:
        raise ValueError(f"in its entry {name!r}, {error}") from error
    if name not in _VARIABLES:
        return content
    try:
        variables = read_weights(content)
    except ValueError as error:
        raise ValueError(f"torch cannot read {name!r} ({error})") from error
    if not isinstance(variables, dict | None):
        raise ValueError(f"its entry {name!r} holds a {type(variables).__name__}")
    for variable, value in (variables or {}).items():
        if not _ENTRY.fullmatch(f"{variable}.pth") or not isinstance(value, th.Tensor | None):
            raise ValueError(f"its entry {name!r} holds {variable!r}, which is no tensor of a model")
    return content

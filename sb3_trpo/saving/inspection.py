"""Tells what a saved file holds and what it would run, without running it."""

import io
import json
import os
import pathlib
import reprlib
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo.checks import described
from sb3_trpo.reading.archives import read_entries
from sb3_trpo.reading.fields import field_recipe
from sb3_trpo.reading.pickles import NotRebuiltError, read_pickle
from sb3_trpo.reading.policy_files import torch_recipe
from sb3_trpo.reading.rebuild import rebuild, unknown_calls
from sb3_trpo.reading.text import printable
from sb3_trpo.reading.weights import read_weights
from sb3_trpo.saving.checkpoint_folder import MEMBERS
from sb3_trpo.saving.checkpoints import is_on_policy, is_own, is_trpo
from sb3_trpo.saving.run_pickles import read_state
from sb3_trpo.saving.untrusted import read_model

_LONGEST = 70


def inspect_file(path: str | os.PathLike[str]) -> str:
    """
    Describe a saved model, a policy that was saved alone, the statistics of ``VecNormalize``, or a checkpoint of a run.
    Nothing in the file runs.

    :param path: path of the file
    :return: the description: the kind of file, its parts with their types, and what would run if the file was trusted
    :raises ValueError: if it is none of these, or is damaged
    """
    content = pathlib.Path(path).read_bytes()
    heading = f"{path}: {{}}, {len(content):,} bytes"
    if not zipfile.is_zipfile(io.BytesIO(content)):
        lines, runs, kind = *_pickle_lines(path, content), "a pickle"
    elif "data" in zipfile.ZipFile(io.BytesIO(content)).namelist():
        lines, runs, kind = _model_lines(path, content)
    elif set(MEMBERS) <= set(zipfile.ZipFile(io.BytesIO(content)).namelist()):
        lines, runs, kind = *_checkpoint_lines(path, content), "a checkpoint of ResumeCallback"
    else:
        lines, runs, kind = *_torch_lines(path, content), "a file of torch, such as a policy saved alone"
    ending = ["Would run if trusted:", *runs] if runs else ["Nothing in it needs to run."]
    return printable("\n".join([heading.format(kind), *lines, *ending]))


def _model_lines(path: Any, content: bytes) -> tuple[list[str], list[str], str]:
    """Describe a saved model: its attributes and entries, what would run, and whose it is."""
    try:
        entries, saved = read_model(io.BytesIO(content))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no saved model: {error}") from error
    lines, runs = ["Attributes:"], []
    for name, field in saved.items():
        line, found = _part(name, partial(field_recipe, field))
        lines.append(line)
        runs += found
    lines.append("Entries:")
    for name, entry in entries.items():
        if name.endswith(".pth"):
            line, found = _weights(name, entry)
            lines.append(line)
            runs += found
        else:
            lines.append(f"  {name}: {len(entry):,} bytes")
    return lines, runs, _whose(set(saved))


def _checkpoint_lines(path: Any, content: bytes) -> tuple[list[str], list[str]]:
    """Describe a checkpoint: the run, its model at the start, and the parts of its state."""
    try:
        entries = read_entries(io.BytesIO(content))
        about, model, state = (entries[name] for name in MEMBERS)
        run = _dict(json.loads(about))
        parts, unknown = _dict(read_state(state)), []
    except UnpicklingError as error:
        parts, unknown = {}, [f"  state: {error}"]
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint: {error}") from error
    lines, runs, _ = _model_lines(path, model)
    described_run = [f"  {name}: {value}" for name, value in run.items()]
    described_state = [f"  {name}: {_described(part)}" for name, part in parts.items()]
    return ["Run:", *described_run, "State:", *described_state, "Model at the start.", *lines], [*runs, *unknown]


def _dict(part: Any) -> dict[Any, Any]:
    """Refuse a part of a checkpoint that is none of a run."""
    if not isinstance(part, dict):
        raise ValueError(f"it holds a {type(part).__name__} in place of a dict")
    return part


def _whose(names: set[str]) -> str:
    """Tell the algorithm that saved a model by the names of its attributes."""
    if is_own(names):
        return "a model of this package"
    if is_trpo(names):
        return "a model of sb3-contrib's TRPO"
    return "a model of PPO, A2C or another on-policy algorithm" if is_on_policy(names) else "a model of another algorithm"


def _part(name: str, read: Callable[[], Any], stored: Callable[[str], bytes] | None = None) -> tuple[str, list[str]]:
    """Describe a part of a file in one line, and list what it would run."""
    try:
        recipe = read()
    except NotRebuiltError as error:
        return f"  {name}: unreadable, {error}", [f"  {name}: unknown, because {error}"]
    calls = unknown_calls(recipe)
    runs = [f"  {name}: {', '.join(calls)}"] if calls else []
    try:
        return f"  {name}: {_described(rebuild(recipe, stored))}", runs
    except NotRebuiltError as error:
        return f"  {name}: not rebuilt, {error}", runs or [f"  {name}: unknown, because {error}"]


def _same(part: Any) -> Any:
    return part


def _described(value: Any) -> str:
    """Describe a value: its type, and as much of it as fits."""
    if isinstance(value, type):
        return f"class {value.__module__}.{value.__qualname__}"
    if isinstance(value, np.ndarray | th.Tensor):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple | dict | deque | spaces.Dict | spaces.Tuple) and len(value) > 3:
        return f"{type(value).__name__} of {len(value)}"
    nested = isinstance(value, list | tuple | dict | deque)
    text = reprlib.repr(value) if nested else described(value)  # the whole of a nested value may be endless
    return f"{type(value).__name__} {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"


def _weights(name: str, content: bytes) -> tuple[str, list[str]]:
    """Describe an entry with weights, which torch reads without running it."""
    try:
        values = read_weights(content)
    except ValueError as error:
        return f"  {name}: {len(content):,} bytes that torch refuses, {error}", list(_unknown_in_torch(name, content))
    tensors = [value for value in _values(values) if isinstance(value, th.Tensor)]
    return f"  {name}: {len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors):,} numbers", []


def _values(inside: Any) -> Iterator[Any]:
    """Iterate over the values in nested containers."""
    if isinstance(inside, dict | list | tuple):
        for value in inside.values() if isinstance(inside, dict) else inside:
            yield from _values(value)
    else:
        yield inside


def _unknown_in_torch(name: str, content: bytes) -> Iterator[str]:
    """List what the pickle in a file of torch would run."""
    try:
        recipe = torch_recipe(content)[0]
    except ValueError as error:
        yield f"  {name}: unknown, because {error}"
        return
    yield f"  {name}: {', '.join(unknown_calls(recipe))}"


def _torch_lines(path: Any, content: bytes) -> tuple[list[str], list[str]]:
    """Describe a policy that was saved alone."""
    try:
        recipe, archive, root = torch_recipe(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no saved file: {error}") from error
    parts = recipe if isinstance(recipe, dict) else {"content": recipe}
    data = parts.get("data")
    if isinstance(data, dict):
        parts = {**{name: part for name, part in parts.items() if name != "data"}, **data}
    lines, runs = ["Parts:"], []
    for name, part in parts.items():
        line, found = _part(str(name), partial(_same, part), lambda entry: archive.read(root + entry))
        lines.append(line)
        runs += found
    return lines, runs


def _pickle_lines(path: Any, content: bytes) -> tuple[list[str], list[str]]:
    """Describe a pickle, such as the statistics of ``VecNormalize``."""
    try:
        recipe = read_pickle(content)
    except NotRebuiltError as error:
        raise ValueError(f"{path} is neither a saved model nor a pickle: {error}") from error
    line, runs = _part("content", partial(_same, recipe))
    value = None if runs else rebuild(recipe)
    attributes = vars(value).items() if isinstance(value, VecNormalize) else ()
    return ["Parts:", line, *(f"  {name}: {_described(part)}" for name, part in attributes)], runs

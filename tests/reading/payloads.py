"""A corpus of pickles that touch a canary file when they are loaded, each by another way into running code."""

import builtins
import collections
import contextlib
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import runpy
import subprocess
from collections.abc import Callable
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.save_util import load_from_pkl


class Evil:
    """Pickles as a call."""

    def __init__(self, callee: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.reduced = (callee, args) if state is None else (callee, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def touching(canary: pathlib.Path) -> Evil:
    """The plainest payload."""
    return Evil(os.system, f"touch {canary}")


def stacked(canary: pathlib.Path) -> bytes:
    """``getattr(Path(canary), "touch")()``: a call of the result of a call of the result of a call."""
    path = pickle.dumps(str(canary), 0)[:-1].replace(b"p0\n", b"")
    return b"c__builtin__\ngetattr\n(cpathlib\nPath\n(" + path + b"tRS'touch'\ntR)R."


def by_value(canary: pathlib.Path) -> bytes:
    """A function of which cloudpickle writes the code, and its call."""
    target = str(canary)

    def touch() -> None:
        open(target, "w").close()

    return cloudpickle.dumps(Evil(touch))  # type: ignore[no-any-return]


def class_by_value(canary: pathlib.Path) -> bytes:
    """An object whose class cloudpickle writes, with the code of its ``__setstate__``."""
    target = str(canary)

    class Local:
        def __init__(self) -> None:
            self.attribute = 1

        def __setstate__(self, state: Any) -> None:
            open(target, "w").close()

    return cloudpickle.dumps(Local())  # type: ignore[no-any-return]


def disguised(canary: pathlib.Path) -> bytes:
    """A function that claims to be SB3's constant schedule, and its call."""
    target = str(canary)

    def func() -> None:
        open(target, "w").close()

    func.__module__, func.__qualname__ = "stable_baselines3.common.utils", "constant_fn.<locals>.func"
    return cloudpickle.dumps(Evil(func))  # type: ignore[no-any-return]


def nested_torch(canary: pathlib.Path) -> Evil:
    """A storage of torch whose bytes are a file of torch with a payload, which torch's function loads with all its pickles."""
    file = io.BytesIO()
    th.save(touching(canary), file, _use_new_zipfile_serialization=False)
    return Evil(th.storage._load_from_bytes, file.getvalue())


def object_array(canary: pathlib.Path) -> np.ndarray:
    """An array of objects."""
    array = np.empty(1, dtype=object)
    array[0] = touching(canary)
    return array


def script(canary: pathlib.Path) -> pathlib.Path:
    """A module beside the canary that touches it."""
    path = canary.with_name("evil_module.py")
    path.write_text(f"open({str(canary)!r}, 'w').close()\n")
    return path


def own_loader(canary: pathlib.Path) -> Evil:
    """SB3's own function that unpickles another file."""
    other = canary.with_name("other.pkl")
    other.write_bytes(pickle.dumps(touching(canary)))
    return Evil(load_from_pkl, str(other))


def in_a_space(canary: pathlib.Path) -> Evil:
    """The payload in the state of an allowed class."""
    return Evil(spaces.Box, -1.0, 1.0, state={"low": touching(canary)})


def with_a_type(canary: pathlib.Path) -> Evil:
    """A class that ``type`` makes of a payload."""
    return Evil(type, "Made", (), {"attribute": touching(canary)})


PAYLOADS: dict[str, Callable[[pathlib.Path], Any]] = {
    "os.system": touching,
    "builtins.exec": lambda canary: Evil(builtins.exec, f"open({str(canary)!r}, 'w').close()"),
    "builtins.eval": lambda canary: Evil(builtins.eval, f"open({str(canary)!r}, 'w').close()"),
    "dotted name": lambda canary: Evil(pathlib.Path.touch, canary),
    "subprocess.run": lambda canary: Evil(subprocess.check_call, ["touch", str(canary)]),
    "runpy.run_path": lambda canary: Evil(runpy.run_path, str(script(canary))),
    "pickle.loads": lambda canary: Evil(pickle.loads, pickle.dumps(touching(canary))),
    "cloudpickle.loads": lambda canary: Evil(cloudpickle.loads, pickle.dumps(touching(canary))),
    "stacked REDUCE": stacked,
    "nested REDUCE": lambda canary: Evil(collections.OrderedDict, [("key", touching(canary))]),
    "functools.partial": lambda canary: Evil(tuple, Evil(map, functools.partial(os.system), [f"touch {canary}"])),
    "operator.attrgetter": lambda canary: Evil(tuple, Evil(map, operator.methodcaller("touch"), [canary])),
    "type": with_a_type,
    "INST": lambda canary: f"(S'touch {canary}'\nios\nsystem\n.".encode(),
    "OBJ": lambda canary: f"(cos\nsystem\nS'touch {canary}'\no.".encode(),
    "deque of payloads": lambda canary: collections.deque([touching(canary)], 3),
    "state of an allowed class": in_a_space,
    "object array": object_array,
    "cloudpickle function": by_value,
    "cloudpickle class": class_by_value,
    "disguised schedule": disguised,
    "nested torch file": nested_torch,
    "SB3's own loader": own_loader,
    "importlib": lambda canary: Evil(importlib.import_module, script(canary).stem),
    "class in a dict": lambda canary: {"features_extractor_class": touching(canary)},
}

OBJECTS = sorted(
    {*PAYLOADS} - {"INST", "OBJ", "cloudpickle class", "cloudpickle function", "disguised schedule", "stacked REDUCE"}
)
"""The payloads that are objects; the others are pickles."""


def payload(name: str, canary: pathlib.Path) -> bytes:
    """
    Make a pickle that touches a file when it is loaded.

    :param name: name of the way
    :param canary: the file
    :return: the pickle
    """
    made = PAYLOADS[name](canary)
    return made if isinstance(made, bytes) else pickle.dumps(made)


def touches(load: Callable[[], Any], canary: pathlib.Path) -> bool:
    """
    Tell whether a load touches the canary, whatever error it ends with.

    :param load: the load
    :param canary: the file
    :return: whether it does
    """
    with contextlib.suppress(Exception):
        load()
    return canary.exists()


def torch_file(content: Any) -> bytes:
    """
    Write a file of torch.

    :param content: what it holds
    :return: its bytes
    """
    file = io.BytesIO()
    th.save(content, file)
    return file.getvalue()

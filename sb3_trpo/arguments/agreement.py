"""Refuses processes that do not run the same training: other code, spaces or hyperparameters."""

import hashlib
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

_PACKAGES = ("torch", "stable-baselines3", "gymnasium", "numpy")
_OF_NORMALIZER = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "training", "norm_obs_keys")


def describe_training(
    model: OnPolicyAlgorithm, hyperparameters: Iterable[str], normalizer: VecNormalize | None
) -> dict[str, str]:
    """
    Describe what all processes of a training must have in common.

    :param model: this process's model
    :param hyperparameters: names of the attributes to compare
    :param normalizer: the ``VecNormalize`` of its environments, if they have one
    :return: texts by the names of what they describe
    """
    shapes = [f"{name}{tuple(part.shape)}" for name, part in model.policy.state_dict().items()]
    described = {
        "class": text_of(type(model)),
        "code of sb3_trpo": _digest_of_package(),
        "program": _digest_of_program(),
        **{f"version of {name}": version(name) for name in _PACKAGES},
        "version of Python": platform.python_version(),
        "observation_space": text_of(model.observation_space),
        "action_space": text_of(model.action_space),
        "policy": f"{text_of(type(model.policy))} with {', '.join(shapes)}",
        "VecNormalize": "none" if normalizer is None else _describe_normalizer(normalizer),
        "num_timesteps": str(model.num_timesteps),
    }
    return described | {name: text_of(getattr(model, name)) for name in hyperparameters}


def _describe_normalizer(normalizer: VecNormalize) -> str:
    return ", ".join(f"{name}={text_of(getattr(normalizer, name))}" for name in _OF_NORMALIZER)


def refuse_differences(described: Sequence[dict[str, str]]) -> None:
    """
    Compare the descriptions of all processes.

    :param described: the result of :func:`describe_training` of every process
    :raises ValueError: if two differ, naming the first difference, the ranks and their values
    """
    first = described[0]
    for rank, other in enumerate(described):
        for name in first:
            if other.get(name) != first[name]:
                theirs = other.get(name, "none")
                raise ValueError(
                    f"all processes must have the same {name}: rank 0 has {_short(first[name], theirs)}, "
                    f"rank {rank} has {_short(theirs, first[name])}"
                )


def _short(text: str, other: str, width: int = 60) -> str:
    """Show a long text from where it differs from another."""
    start = next(
        (i for i, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), min(len(text), len(other))
    )
    start = 0 if len(text) <= width else max(0, start - width // 2)
    return f"{'…' if start else ''}{text[start : start + width]}{'…' if start + width < len(text) else ''}"


def text_of(value: Any) -> str:
    """
    Write a value so that equal values of two processes have the same text.

    :param value: any value
    :return: the text; for functions and other objects without addresses
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text_of(key)}: {text_of(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, set | frozenset):  # whose order differs between processes
        return f"{{{', '.join(sorted(map(text_of, value)))}}}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        return f"{value.__module__}.{value.__qualname__} {_digest(_of_code(code).encode())}{_bound_to(value)}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _bound_to(function: Any) -> str:
    """Write the plain values that a function has from where it was made: its defaults and the variables around it."""
    values = [*(getattr(function, "__defaults__", None) or ())]
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty one
            values.append(cell.cell_contents)
    plain = [repr(value) for value in values if isinstance(value, bool | int | float | str)]
    return f" with {', '.join(plain)}" if plain else ""


def _of_code(code: CodeType) -> str:
    constants = [_of_code(part) if isinstance(part, CodeType) else text_of(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()


@cache
def _digest_of_package() -> str:
    root = Path(__file__).parent.parent
    return _digest(b"".join(path.read_bytes() for path in sorted(root.rglob("*.py"))))


def _digest_of_program() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return "none" if path is None or not Path(path).is_file() else _digest(Path(path).read_bytes())

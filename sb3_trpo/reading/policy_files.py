"""Reads policies that their ``save`` method wrote alone, and the statistics of ``VecNormalize``."""

import io
import os
import pathlib
import zipfile
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trpo.reading.archives import check_entries
from sb3_trpo.reading.pickles import NotRebuiltError, read_pickle
from sb3_trpo.reading.rebuild import load_pickle, rebuild
from sb3_trpo.reading.trust import is_trusted

P = TypeVar("P", bound=BasePolicy)
ReadPath = str | os.PathLike[str] | io.BufferedIOBase

_ADVICE = "if you trust whoever made it, pass `trusted=True`"
_REPLACE = f"replace it by `custom_objects`, or {_ADVICE}"
_SB3_LOAD = BasePolicy.load.__func__  # type: ignore[attr-defined]
_SB3_LOAD_STATISTICS = VecNormalize.load
_PARTS = {"state_dict", "data"}


def load_policy(
    policy_class: type[P],
    path: ReadPath,
    device: th.device | str = "auto",
    trusted: bool = False,
    custom_objects: dict[str, Any] | None = None,
) -> P:
    """
    Load a policy that its ``save`` method wrote; nothing in the file runs.

    :param policy_class: class of the policy
    :param path: path of the file, or a file object
    :param device: device to load to
    :param trusted: whether to let the file run whatever code it contains, as SB3's ``load`` does
    :param custom_objects: arguments of the policy that replace those of the file; not for a trusted file
    :return: the policy
    :raises ValueError: if the file is damaged, holds a policy of another class, or contains something that cannot be rebuilt
        without running it
    """
    if is_trusted(trusted):
        loaded: P = _SB3_LOAD(policy_class, path, device)
        return loaded
    parts = _policy_parts(path, custom_objects or {})
    try:
        policy = policy_class(**parts["data"])
    except TypeError as error:
        raise ValueError(f"{path} does not hold a {policy_class.__name__}: {error}") from error
    policy.load_state_dict(parts["state_dict"])
    return policy.to(get_device(device))


def _policy_parts(path: ReadPath, given: dict[str, Any]) -> dict[str, Any]:
    """Read the parts of a policy's file: ``state_dict``, the weights by name, and ``data``, the arguments of its class."""
    content = _content(path)
    try:
        recipe, archive, root = torch_recipe(content)
        if not isinstance(recipe, dict) or set(recipe) != _PARTS or not isinstance(recipe["data"], dict):
            raise ValueError("it does not hold the two parts `state_dict` and `data`")
        weights = _named("state_dict", recipe["state_dict"], archive, root)
        others = {name: part for name, part in recipe["data"].items() if name not in given}
        data = {name: _named(f"data[{name!r}]", part, archive, root) for name, part in others.items()}
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no saved policy: {error}") from error
    return {"state_dict": weights, "data": {**data, **given}}


def torch_recipe(content: bytes) -> tuple[Any, zipfile.ZipFile, str]:
    """
    Read the pickle in a file of torch without running it.

    :param content: the file
    :return: its recipe, the file as an archive, and the folder inside it
    :raises ValueError: if it is damaged, or of the format before torch 1.6
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        check_entries(archive.infolist(), len(content))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("it has no entry 'data.pkl'")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers have another byte order")
        return read_pickle(archive.read(pickles[0])), archive, root
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _named(part: str, recipe: Any, archive: zipfile.ZipFile, root: str) -> Any:
    """Rebuild a part of a file, and name it in the error."""

    def read(entry: str) -> bytes:
        try:
            return archive.read(root + entry)
        except (KeyError, zipfile.BadZipFile) as error:
            raise NotRebuiltError(f"its entry {entry!r} is missing or damaged") from error

    try:
        return rebuild(recipe, read)
    except NotRebuiltError as error:
        raise ValueError(f"`{part}` cannot be rebuilt without running it: {error}; {_REPLACE}") from error


def _content(path: ReadPath) -> bytes:
    return pathlib.Path(path).read_bytes() if isinstance(path, str | os.PathLike) else path.read()


def load_vec_normalize(path: str | os.PathLike[str], venv: VecEnv, trusted: bool = False) -> VecNormalize:
    """
    Load the statistics that ``VecNormalize.save`` wrote; nothing in the file runs.

    :param path: path of the file
    :param venv: the environments to normalise
    :param trusted: whether to let the file run whatever code it contains, as ``VecNormalize.load`` does
    :return: the environments, normalised
    :raises ValueError: if the file is damaged, or contains something that cannot be rebuilt without running it
    """
    if is_trusted(trusted):
        return _SB3_LOAD_STATISTICS(os.fspath(path), venv)
    try:
        statistics = load_pickle(_content(path))
    except NotRebuiltError as error:
        raise ValueError(f"the statistics in {path} cannot be rebuilt without running them: {error}; {_ADVICE}") from error
    if not isinstance(statistics, VecNormalize):
        raise ValueError(f"{path} holds a {type(statistics).__name__}, not the statistics of VecNormalize")
    vars(statistics)["venv"] = None
    statistics.set_venv(venv)
    return statistics

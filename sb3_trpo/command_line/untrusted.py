"""Lets RL Zoo's scripts read the files of a run without running anything in them."""

import ast
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_trpo.reading.classes import find_class
from sb3_trpo.reading.pickles import Name, NotRebuiltError
from sb3_trpo.reading.rebuild import load_pickle
from sb3_trpo.reading.text import printable

_FILES = ("config.yml", "args.yml")
_TRUST = "if you trust whoever made the file, add `--trusted`"
_WRAPPERS: dict[str, str] = {
    "stable_baselines3.common.atari_wrappers": (
        "AtariWrapper ClipRewardEnv EpisodicLifeEnv FireResetEnv MaxAndSkipEnv NoopResetEnv StickyActionEnv WarpFrame"
    ),
    "sb3_contrib.common.wrappers": "TimeFeatureWrapper",
    "rl_zoo3.wrappers": (
        "ActionNoiseWrapper ActionSmoothingWrapper DelayedRewardWrapper FrameSkip HistoryWrapper HistoryWrapperObsDict "
        "MaskVelocityWrapper TruncatedOnSuccessWrapper YAMLCompatResizeObservation"
    ),
    "gymnasium.wrappers": (
        "ClipAction FlattenObservation FrameStackObservation GrayscaleObservation RescaleAction ResizeObservation "
        "TimeAwareObservation"
    ),
}
"""Wrappers that a configuration may name, separated by blanks: they neither write files nor take functions."""


class PlainLoader(yaml.SafeLoader):
    """Reads the YAML that RL Zoo writes: plain data, ordered dicts, tuples and known classes."""


def _ordered_dict(loader: PlainLoader, node: yaml.Node) -> Any:
    (pairs,) = loader.construct_sequence(node, deep=True)  # type: ignore[arg-type]
    return OrderedDict((key, value) for key, value in pairs)


def _tuple(loader: PlainLoader, node: yaml.Node) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))  # type: ignore[arg-type]


def _class(loader: PlainLoader, path: str, node: yaml.Node) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return find_class(Name(module, name))
    except NotRebuiltError as error:
        raise yaml.YAMLError(f"{error}") from error


PlainLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", _class)


def load_plain_yaml(own_packages: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Make a patch of ``yaml.load`` that reads the files of a run as plain data.

    :param own_packages: packages that the user names on the command line; a configuration may name their wrappers
    :return: the patch
    """

    def patch(load: Callable[..., Any]) -> Callable[..., Any]:
        def patched(stream: Any, Loader: Any) -> Any:  # noqa: N803  PyYAML's name
            path = Path(str(getattr(stream, "name", "")))
            if path.name not in _FILES:
                return load(stream, Loader=Loader)
            try:
                settings = load(stream, Loader=PlainLoader)
            except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
                reason = printable(" ".join(str(error).split()), 300)
                raise ValueError(f"{path} needs code to be read: {reason}; {_TRUST}") from error
            return _checked(path, settings, own_packages)

        return patched

    return patch


def load_plain_results(_: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``pickle.load`` read what ``all_plots`` wrote, which ``plot_from_file`` would unpickle."""

    def patched(stream: Any, **_: Any) -> Any:
        try:
            return load_pickle(stream.read())
        except NotRebuiltError as error:
            path = getattr(stream, "name", "the file")
            raise ValueError(f"the results in {path} cannot be rebuilt without running them: {error}; {_TRUST}") from error

    return patched


def _checked(path: Path, settings: Any, own_packages: Sequence[str]) -> Any:
    """Check the settings that the Zoo would evaluate or import."""
    if not isinstance(settings, dict):
        raise ValueError(f"{path} does not hold settings by name")
    if isinstance(settings.get("normalize"), str):
        settings["normalize"] = _literal(path, settings["normalize"])
    for key in ("env_wrapper", "vec_env_wrapper"):
        named = settings.get(key) or []
        for entry in named if isinstance(named, list) else [named]:
            name = next(iter(entry), None) if isinstance(entry, dict) else entry
            if not _is_known_wrapper(name, own_packages):
                raise ValueError(
                    f"`{key}` = {reprlib.repr(name)} in {path} is none of the known wrappers; {_TRUST}, or `--gym-packages`"
                )
    return settings


def _is_known_wrapper(name: Any, own_packages: Sequence[str]) -> bool:
    """Tell whether a configuration may name a wrapper."""
    if not isinstance(name, str):
        return False
    module, _, kind = name.rpartition(".")
    if module == "gym.wrappers":
        module = "gymnasium.wrappers"
    return kind in _WRAPPERS.get(module, "").split() or any(name.startswith(f"{package}.") for package in own_packages)


def _literal(path: Path, text: str) -> Any:
    """Read ``{…}`` or ``dict(…)`` with plain values, which the Zoo would evaluate."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "dict"):
            return ast.literal_eval(tree)
        if tree.args or not all(keyword.arg for keyword in tree.keywords):
            raise ValueError("a dict of other things than keywords")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"`normalize` = {text!r} in {path} is not plain data; {_TRUST}") from error

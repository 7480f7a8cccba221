"""Save and restore callbacks and the logger of a run: counters, results of evaluations, the open row, the files of the log."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.saving.run_pickles import is_readable
from sb3_trpo.snapshots.environments import Environments
from sb3_trpo.snapshots.plain_data import NotPlainError, freeze, thaw

_RUN = frozenset(["model", "parent", "logger", "locals", "globals", "verbose"])
"""Attributes of callbacks that belong to the run as it is, not to its state."""


def plain_attributes(owner: object, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """
    Copy the attributes of an object that are plain data or tensors.

    :param owner: the object
    :param without: names to leave out
    :return: copies by name
    """
    return _plain({name: value for name, value in vars(owner).items() if name not in without})


class CallbackState(NamedTuple):
    """
    Holds the state of one callback.

    :param kind: its class
    :param attributes: those that are plain data
    :param environments: states of the environments that it evaluates in, by attribute; those that cannot be saved are left out
    """

    kind: str
    attributes: dict[str, Any]
    environments: dict[str, Any]


def callback_states(root: BaseCallback, without: type[BaseCallback]) -> list[CallbackState]:
    """
    Save all callbacks of a run.

    :param root: the callback that holds the others
    :param without: class of callbacks that have no state
    :return: the state of each callback that has one, in the order of :func:`tree`
    """
    return [_state_of(callback) for callback in _with_state(root, without)]


def restore_callbacks(root: BaseCallback, states: list[CallbackState], without: type[BaseCallback]) -> bool:
    """
    Restore the callbacks of a run.

    :param root: the callback that holds the others
    :param states: a result of :func:`callback_states`
    :param without: class of callbacks that have no state
    :return: whether these are the callbacks that were saved; of others, nothing is restored
    """
    callbacks = _with_state(root, without)
    if [_kind(callback) for callback in callbacks] != [state.kind for state in states]:
        return False
    for callback, state in zip(callbacks, states, strict=True):
        vars(callback).update({name: thaw(value) for name, value in state.attributes.items()})
        for name, saved in state.environments.items():
            Environments(getattr(callback, name)).set(saved)
    return True


def tree(callback: BaseCallback) -> Iterator[BaseCallback]:
    """
    Find a callback and those that it holds, in the order of its attributes.

    :param callback: the callback that holds the others
    :return: all of them
    """
    yield callback
    for name, value in vars(callback).items():
        if name in _RUN:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseCallback):
                yield from tree(child)


def _with_state(root: BaseCallback, without: type[BaseCallback]) -> list[BaseCallback]:
    """List the callbacks with a state. Those in which SB3 wraps the user's, or None, have none, nor has a progress bar."""
    wrapping = (CallbackList, ConvertCallback)
    found = [callback for callback in tree(root) if type(callback) not in wrapping]
    return [callback for callback in found if not isinstance(callback, (without, ProgressBarCallback))]


def _kind(callback: BaseCallback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _state_of(callback: BaseCallback) -> CallbackState:
    environments = {}
    for name, value in vars(callback).items():
        if isinstance(value, VecEnv) and name not in ("training_env", *_RUN):
            try:
                environments[name] = Environments(value).get()
            except ValueError:  # evaluations then go on in other episodes
                continue
    return CallbackState(_kind(callback), plain_attributes(callback, _RUN), environments)


class LoggerState(NamedTuple):
    """
    Holds the state of a logger.

    :param row: values, counts and exclusions of the open row
    :param files: for each output with a file of text: its class, its content and its columns
    """

    row: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
    files: list[tuple[str, str, list[str]]]


def logger_state(logger: Logger) -> LoggerState:
    """
    Save a logger.

    :param logger: the logger
    :return: its state
    """
    row = (_plain(logger.name_to_value), _plain(logger.name_to_count), _plain(logger.name_to_excluded))
    files = []
    for output in _outputs(logger):
        output.file.flush()
        files.append((type(output).__name__, Path(output.file.name).read_text(), list(getattr(output, "keys", []))))
    return LoggerState(row, files)


def restore_logger(logger: Logger, state: LoggerState) -> None:
    """
    Restore a logger. Rows of the same outputs are written again, so that a file has the rows of an undisturbed run.

    :param logger: the logger
    :param state: a result of :func:`logger_state`
    """
    open_row: tuple[dict[str, Any], ...] = (logger.name_to_value, logger.name_to_count, logger.name_to_excluded)
    for part, saved in zip(open_row, state.row, strict=True):
        part.clear()
        part.update(saved)
    saved_files = list(state.files)
    for output in _outputs(logger):
        found = next((file for file in saved_files if file[0] == type(output).__name__), None)
        if found is None:
            continue
        saved_files.remove(found)
        output.file.seek(0)
        output.file.truncate()
        output.file.write(found[1])
        output.file.flush()
        if hasattr(output, "keys"):
            output.keys = list(found[2])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Copy the entries that are plain data; pictures are none, and members of an ``Enum`` could not be read without trust."""
    plain = {}
    for name, value in values.items():
        try:
            frozen = freeze(value)
        except NotPlainError:
            continue
        if is_readable(frozen):
            plain[name] = frozen
    return plain


def _outputs(logger: Logger) -> list[Any]:
    """Find the outputs that write text to a file of their own."""
    outputs: list[Any] = [output for output in logger.output_formats if hasattr(output, "file")]
    return [output for output in outputs if output.file not in (sys.stdout, sys.stderr) and hasattr(output.file, "name")]

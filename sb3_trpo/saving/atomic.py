"""Writes files whole or not at all: a kill, a full disk or an error leaves the file that was there before."""

import errno
import io
import os
import pathlib
import secrets
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from stable_baselines3.common.save_util import open_path

SavePath = str | os.PathLike[str] | io.BufferedIOBase
"""Where a model is saved: the path of a zip file, or a file object."""


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """
    Open a temporary file beside a file, which it replaces if the block ends without an error.

    A link stays, and the file that it points to is replaced. The new file has the permissions of the one that it replaces. A
    device or a pipe is written to directly. Only a kill leaves the temporary file, whose name begins with a dot and ends with
    ``.tmp``.

    :param path: the file to write; its folder must exist and be writable
    :return: the temporary file, open for reading and writing bytes
    :raises OSError: if the file cannot be written, naming it; whatever was there before is unchanged
    """
    target = pathlib.Path(os.path.realpath(path))
    if target.is_symlink():
        raise _refusal(path, errno.ELOOP, "it is a link that leads back to itself")
    if target.exists() and not target.is_file():
        with target.open("wb") as device:
            yield device
        return
    if target.exists() and not os.access(target, os.W_OK):
        raise _refusal(path, errno.EACCES, "the file is read-only")
    aside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    with _refusals(path, target):
        file = aside.open("x+b")
    try:
        with file:
            if target.exists():
                with _refusals(path, target):
                    os.chmod(aside, stat.S_IMODE(target.stat().st_mode))
            with _full_disk_named(path):
                yield file
                file.flush()
                os.fsync(file.fileno())
        with _refusals(path, target):
            os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def _refusals(path: str | os.PathLike[str], target: pathlib.Path) -> Iterator[None]:
    """Let an error that names the temporary file name the user's path instead, and say what the folder must be."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if not target.parent.is_dir():
            reason = f"{reason}: there is no folder {target.parent}"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            allowed = "writable, and not sticky unless the file is yours"
            reason = f"{reason}: its folder {target.parent} must be {allowed}, because the file is replaced whole"
        raise _refusal(path, error.errno, reason) from None


@contextmanager
def _full_disk_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of a full disk, which names no file, name the user's path."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        raise _refusal(path, error.errno, error.strerror or str(error)) from error


def _refusal(path: str | os.PathLike[str], number: int | None, reason: str) -> OSError:
    """Make the error of a file that cannot be written; Python chooses the subclass by the number."""
    return OSError(number, f"cannot write the file; {reason}", os.fspath(path))


def save_aside(path: SavePath, write: Callable[[Any], None]) -> None:
    """
    Save a model as SB3's ``save`` does, but whole or not at all. A file object receives nothing before all bytes are made.

    :param path: path of the zip file, to which ``.zip`` is added unless it has a suffix, or a file object
    :param write: writes the model to a file object
    :raises OSError: if the file cannot be written
    """
    if isinstance(path, str | os.PathLike):
        with written_aside(_path_to_write(pathlib.Path(path))) as aside:
            write(aside)
        return
    file, made = open_path(path, "w"), io.BytesIO()
    write(made)
    file.write(made.getbuffer())
    file.flush()


def _path_to_write(path: pathlib.Path) -> pathlib.Path:
    """Choose the file as ``open_path`` of SB3 does, with its warnings: the suffix, another name than a folder's, parents."""
    if path.suffix == "":
        path = pathlib.Path(f"{path}.zip")
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=4)
        return _path_to_write(pathlib.Path(f"{path}_2"))
    if not path.parent.exists():
        warnings.warn(f"Path '{path.parent}' does not exist. Will create it.", stacklevel=4)
        path.parent.mkdir(exist_ok=True, parents=True)
    return path


def _sync_folder(folder: pathlib.Path) -> None:
    """Write the folder's new entry to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

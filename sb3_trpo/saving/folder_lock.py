"""Keeps a folder for one run: a second one that saves there at the same time is refused."""

import errno
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


class FolderLock:
    """
    Locks a folder until :meth:`release`, or until the process ends in any way, where the system can.

    :param folder: the folder
    :raises ValueError: if another run, of this process or another one, has locked it
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        if find_spec("fcntl") is None:  # Windows
            return
        fcntl = import_module("fcntl")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ValueError(f"`folder` = {folder} is in use: another run saves its checkpoints there now") from error
            return  # a network drive that knows no locks
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the folder back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: Path) -> bool:
    """
    Tell whether a run saves in a folder now.

    :param folder: the folder
    :return: whether one does, where the system can tell
    """
    try:
        FolderLock(folder).release()
    except ValueError:
        return True
    return False

"""A folder with the last checkpoints of a run, of which the newest whole one counts."""

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from sb3_trpo.reading.archives import read_entries
from sb3_trpo.saving.atomic import written_aside
from sb3_trpo.saving.run_pickles import read_state, write_state

_NAME = re.compile(r"checkpoint_(\d{12,})\.zip")
MEMBERS = ("about.json", "model.zip", "state.pkl")
"""Entries of a checkpoint: the fields of :class:`Checkpoint`."""


class Checkpoint(NamedTuple):
    """
    One checkpoint.

    :param about: class, library versions, numbers of threads and of environments, folders of checkpoints
    :param model: the model at the start of the run, as ``save`` writes it
    :param state: the state of the run
    """

    about: dict[str, Any]
    model: bytes
    state: dict[str, Any]


def checkpoints_in(folder: Path) -> list[Path]:
    """
    Find the checkpoints of a folder.

    :param folder: the folder; it need not exist
    :return: the files, newest first
    """
    found = [path for path in folder.glob("checkpoint_*.zip") if _NAME.fullmatch(path.name)]
    return sorted(found, key=steps_of, reverse=True)


def steps_of(path: Path) -> int:
    """
    Read the number of env steps off the name of a checkpoint.

    :param path: a file of :func:`checkpoints_in`
    :return: env steps before it was written
    """
    return int(path.stem.rpartition("_")[2])


def write_checkpoint(folder: Path, steps: int, checkpoint: Checkpoint, keep: int) -> Path:
    """
    Write a checkpoint, whole or not at all, and then delete the oldest.

    :param folder: the folder, which exists
    :param steps: env steps so far, the file's name
    :param checkpoint: the checkpoint
    :param keep: number of checkpoints that stay
    :return: the file
    :raises OSError: if the file cannot be written; the earlier ones stay
    """
    path = folder / f"checkpoint_{steps:012d}.zip"
    parts = (json.dumps(checkpoint.about).encode(), checkpoint.model, write_state(checkpoint.state))
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w") as archive:  # stored: packing takes longer than writing
        for name, content in zip(MEMBERS, parts, strict=True):
            archive.writestr(name, content)
    for old in [file for file in checkpoints_in(folder) if steps_of(file) <= steps][keep:]:  # damaged ones may be newer
        old.unlink(missing_ok=True)
    return path


def read_newest(folder: Path, trusted: bool = False) -> Checkpoint:
    """
    Read the newest checkpoint that is whole. A warning names each one that is not.

    :param folder: the folder
    :param trusted: whether the files may run the code that they contain
    :return: the checkpoint
    :raises FileNotFoundError: if there is none
    """
    for path in checkpoints_in(folder):
        try:
            return _read(path, trusted)
        except (EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            warnings.warn(f"the checkpoint {path} cannot be read ({error}); an earlier one is used", UserWarning, stacklevel=4)
    raise FileNotFoundError(f"`folder` must hold a checkpoint of ResumeCallback, and {folder} holds none that can be read")


def _read(path: Path, trusted: bool) -> Checkpoint:
    with path.open("rb") as file:
        entries = read_entries(file)  # which checks the sums
    about, model, state = (entries[name] for name in MEMBERS)
    return Checkpoint(json.loads(about), model, read_state(state, trusted))

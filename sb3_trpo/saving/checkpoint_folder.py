"""A folder with the last checkpoints of a run, of which the newest whole one counts."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sb3_trpo.reading.archives import read_entries
from sb3_trpo.saving.atomic import written_aside
from sb3_trpo.saving.run_pickles import read_state, write_state
from sb3_trpo.step.workers import Workers

_NAME = re.compile(r"checkpoint_(\d{12,})\.zip")
MEMBERS = ("about.json", "model.zip", "state.pkl")
"""Entries of a checkpoint: the first fields of :class:`Checkpoint`."""
_OF_RANK = "state_{}.pkl"
"""Entry with the state of another process."""


class Checkpoint(NamedTuple):
    """
    One checkpoint.

    :param about: class, library versions, numbers of threads and of environments, folders of checkpoints
    :param model: the model at the start of the run, as ``save`` writes it
    :param state: the state of the run, in the first process
    :param others: what differs in each of the other processes, pickled
    """

    about: dict[str, Any]
    model: bytes
    state: dict[str, Any]
    others: Sequence[bytes] = ()


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
        for rank, content in enumerate(checkpoint.others, start=1):
            archive.writestr(_OF_RANK.format(rank), content)
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
            warnings.warn(f"the checkpoint {path} cannot be read ({error}); an earlier one is used", UserWarning, stacklevel=5)
    raise FileNotFoundError(f"`folder` must hold a checkpoint of ResumeCallback, and {folder} holds none that can be read")


def _read(path: Path, trusted: bool) -> Checkpoint:
    with path.open("rb") as file:
        entries = read_entries(file)  # which checks the sums
    about, model, state = (entries[name] for name in MEMBERS)
    description = json.loads(about)
    others = [entries[_OF_RANK.format(rank)] for rank in range(1, len(description.get("n_envs_of_ranks", [0])))]
    return Checkpoint(description, model, read_state(state, trusted), others)


def read_newest_of_the_first(folder: Path, trusted: bool, workers: Workers) -> Checkpoint:
    """
    Let the first process read the newest checkpoint for all of them.

    :param folder: the folder, which only the first process must be able to read
    :param trusted: whether the files may run the code that they contain
    :param workers: the processes
    :return: the checkpoint with the state of this process
    :raises FileNotFoundError: if there is none
    :raises ValueError: if it is that of another number of processes
    """
    if workers.size == 1:
        checkpoint = read_newest(folder, trusted)
    else:
        found: Checkpoint | Exception | None = None
        if workers.rank == 0:
            try:
                found = read_newest(folder, trusted)
            except FileNotFoundError as error:
                found = error
        found = workers.gather(found)[0]
        if isinstance(found, Exception):
            raise found
        assert found is not None
        checkpoint = found
    size = 1 + len(checkpoint.others)
    if size != workers.size:
        raise ValueError(
            f"the run in `folder` has {size} processes, and now there {'is' if workers.size == 1 else 'are'} {workers.size}: "
            f"start it with `torchrun --nproc-per-node {size}`, and pass `distributed=True`"
        )
    if workers.rank > 0:
        own = read_state(checkpoint.others[workers.rank - 1], trusted)
        checkpoint = checkpoint._replace(state={**checkpoint.state, **own})
    return checkpoint

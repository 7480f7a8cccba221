"""Finds the statistics of ``VecNormalize`` that were saved with a model."""

import re
from collections.abc import Iterator
from pathlib import Path

from sb3_trpo.saving.checkpoints import saved_steps

NAME = "vecnormalize.pkl"
"""Name that RL Zoo gives to the file of a run."""


def statistics_of(model: Path) -> Path | None:
    """
    Find the statistics that were saved with a model.

    :param model: the zip file: a checkpoint, the best or the final model of a run
    :return: the file with the statistics; None if there is none
    """
    return next((path for path in candidates(model) if path.is_file()), None)


def candidates(model: Path) -> Iterator[Path]:
    """
    Iterate over the files in which the statistics of a model may be, the likeliest first.

    :param model: the zip file
    :return: paths, of files that may not exist
    """
    checkpoint = re.fullmatch(r"(.+)_(\d+)_steps\.zip", model.name)
    if checkpoint:
        yield model.with_name(f"{checkpoint[1]}_vecnormalize_{checkpoint[2]}_steps.pkl")
    elif model.name == "best_model.zip":
        yield of_best(model.parent, saved_steps(model))
        # the Zoo's file is of the best model until the end of the training
        others = [path for path in model.parent.glob(f"*/{NAME}") if not model.with_name(f"{path.parent.name}.zip").exists()]
        if len(others) == 1 and not all_of_best(model.parent):
            yield others[0]
    else:
        yield model.with_suffix("") / NAME


def of_best(folder: Path, steps: int) -> Path:
    """
    Name the file with the statistics of the best model.

    :param folder: folder of the run
    :param steps: env steps that the model has taken
    :return: its path
    """
    return folder / f"best_model_vecnormalize_{steps}_steps.pkl"


def all_of_best(folder: Path) -> list[Path]:
    """
    List the files with statistics of a best model.

    :param folder: folder of the run
    :return: their paths
    """
    return list(folder.glob("best_model_vecnormalize_*_steps.pkl"))

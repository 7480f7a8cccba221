"""``sb3-trpo train --resume``: saves the run as it goes, and continues the last one that was not finished."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sb3_trpo.command_line.distributed import choice_of_the_first, is_first
from sb3_trpo.saving.checkpoint_folder import checkpoints_in
from sb3_trpo.saving.resume_callback import ResumeCallback

OPTION = "--resume"
_FOLDER = "resume"
_EVERY = 10
"""Number of updates between two checkpoints."""


def without_option(command: str, options: Sequence[str]) -> tuple[list[str], bool]:
    """
    Take ``--resume`` out of a command line, because RL Zoo's script does not know it.

    :param command: the command
    :param options: its options
    :return: the other options, and whether it was among them
    :raises SystemExit: if the command is not ``train``
    """
    others = [option for option in options if option != OPTION]
    given = len(others) < len(options)
    if given and command != "train":
        raise SystemExit(f"sb3-trpo: `{OPTION}` is an option of `train`, not of `{command}`")
    return others, given


@contextmanager
def resumed_training() -> Iterator[None]:
    """Let the Zoo's training save its run, and continue the last run of the same environment that has no final model."""
    manager_class = _zoo().ExperimentManager
    setup = manager_class.setup_experiment
    manager_class.setup_experiment = _resuming(setup)
    try:
        yield
    finally:
        manager_class.setup_experiment = setup


def _zoo() -> Any:
    return import_module("rl_zoo3.exp_manager")  # late, because only the commands need it


def _resuming(setup: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def patched(manager: Any) -> Any:
        algorithms = _zoo().ALGOS
        own = _unfinished_run(Path(manager.log_path), str(manager.env_name))
        unfinished = choice_of_the_first(None if own is None else str(own))
        algorithm = algorithms[manager.algo]
        if unfinished is not None:
            print(f"Resuming {unfinished}")
            if is_first():
                manager.save_path, manager.params_path = unfinished, f"{unfinished}/{manager.env_name}"
                manager.monitor_kwargs["override_existing"] = False
            algorithms[manager.algo] = _Resumed(algorithm, Path(unfinished) / _FOLDER)
        try:
            result = setup(manager)
        finally:
            algorithms[manager.algo] = algorithm
        manager.callbacks.append(ResumeCallback(Path(manager.save_path) / _FOLDER, every=_EVERY))
        return result

    return patched


class _Resumed:
    """
    Stands in for an algorithm's class while the Zoo makes its model.

    :param algorithm: the class
    :param folder: folder of the checkpoints
    """

    def __init__(self, algorithm: Any, folder: Path) -> None:
        self._algorithm = algorithm
        self._folder = folder

    def __call__(self, env: Any, device: str, **_: Any) -> Any:
        return self._algorithm.resume(self._folder, env, device=device)


def _unfinished_run(log_path: Path, env_name: str) -> Path | None:
    """Find the newest run of an environment that has checkpoints, if it has no final model."""
    numbered = [path for path in log_path.glob(f"{env_name}_*") if path.name.rpartition("_")[2].isdigit()]
    resumable = [path for path in numbered if checkpoints_in(path / _FOLDER)]
    newest = max(resumable, key=lambda path: int(path.name.rpartition("_")[2]), default=None)
    return None if newest is None or (newest / f"{env_name}.zip").exists() else newest

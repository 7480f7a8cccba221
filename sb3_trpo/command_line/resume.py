"""``sb3-trpo train --resume``: saves the run as it goes, and continues the last one that was not finished."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_trpo.command_line.distributed import choice_of_the_first, is_first
from sb3_trpo.saving.checkpoint_folder import checkpoints_in
from sb3_trpo.saving.folder_lock import is_locked
from sb3_trpo.saving.resume_callback import ResumeCallback
from sb3_trpo.snapshots.environments import ResumableEnv

_Env = gym.Env[Any, Any]

OPTION = "--resume"
_FOLDER = "resume"
_EVERY = 10
"""Number of updates between two checkpoints."""
_MARK = "unfinished"
"""Name of a file beside the checkpoints while the training is not at its end: the Zoo saves a final model after Ctrl-C too."""


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
    setup, create_envs = manager_class.setup_experiment, manager_class.create_envs
    manager_class.setup_experiment, manager_class.create_envs = _resuming(setup), _resumable_workers(create_envs)
    try:
        yield
    finally:
        manager_class.setup_experiment, manager_class.create_envs = setup, create_envs


def _zoo() -> Any:
    return import_module("rl_zoo3.exp_manager")  # late, because only the commands need it


def _resuming(setup: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def patched(manager: Any) -> Any:
        algorithms = _zoo().ALGOS
        own = unfinished_run(Path(manager.log_path), str(manager.env_name))
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
        manager.callbacks.append(_MarkingCallback(Path(manager.save_path) / _FOLDER, every=_EVERY))
        return result

    return patched


class _MarkingCallback(ResumeCallback):
    """Saves the run, and marks its folder until the training has come to its end; of several processes, the first does."""

    leaves_policy = True

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self._lock is not None:
            (self.folder / _MARK).touch()

    def _on_training_end(self) -> None:
        if self._lock is not None:  # the Zoo calls this again after `learn`, also if that was interrupted
            (self.folder / _MARK).unlink(missing_ok=True)


def _resumable_workers(create_envs: Callable[..., VecEnv]) -> Callable[..., VecEnv]:
    """Let environments in worker processes be saved, where their state is known."""

    def patched(manager: Any, *args: Any, **kwargs: Any) -> VecEnv:
        if manager.vec_env_class is not SubprocVecEnv:
            return create_envs(manager, *args, **kwargs)
        wrapper = manager.env_wrapper
        manager.env_wrapper = partial(_in_worker, wrapper)
        try:
            return create_envs(manager, *args, **kwargs)
        finally:
            manager.env_wrapper = wrapper

    return patched


def _in_worker(wrapper: Callable[[_Env], _Env] | None, env: _Env) -> _Env:
    """Wrap an environment as the Zoo does, and for :class:`~sb3_trpo.ResumableEnv` if its state can be saved."""
    wrapped = env if wrapper is None else wrapper(env)
    try:
        return ResumableEnv(wrapped)
    except ValueError:  # the callback tells that such environments will be reset
        return wrapped


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


def unfinished_run(log_path: Path, env_name: str) -> Path | None:
    """
    Find the newest run of an environment that has checkpoints and is not going on now, if it did not come to its end.

    :param log_path: the Zoo's folder of an algorithm
    :param env_name: the environment's name in folders
    :return: folder of the run
    """
    numbered = [path for path in log_path.glob(f"{env_name}_*") if path.name.rpartition("_")[2].isdigit()]
    resumable = [path for path in numbered if checkpoints_in(path / _FOLDER) and not is_locked(path / _FOLDER)]
    newest = max(resumable, key=lambda path: int(path.name.rpartition("_")[2]), default=None)
    if newest is None or ((newest / f"{env_name}.zip").exists() and not (newest / _FOLDER / _MARK).exists()):
        return None
    return newest

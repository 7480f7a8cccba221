"""What rl_zoo3 2.9 would do otherwise than with its own algorithms, or than in the training, while a command runs."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def mended_zoo() -> Iterator[None]:
    """Films know this package, environments are made as in the training, and the latest run is the latest with a model."""
    from rl_zoo3 import utils  # here, because only the commands need them
    from rl_zoo3.exp_manager import ExperimentManager

    with ExitStack() as stack:
        stack.enter_context(_replaced(subprocess, "call", _film_with_ours))
        stack.enter_context(_replaced(utils, "create_test_env", _film_as_trained))
        stack.enter_context(_replaced(utils, "get_latest_run_id", _latest_with_a_model))
        stack.enter_context(_replaced(ExperimentManager, "create_envs", _evaluate_as_trained))
        yield


@contextmanager
def _replaced(owner: Any, name: str, mend: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, mend(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _film_with_ours(call: Callable[..., int]) -> Callable[..., int]:
    """``record_training`` starts the Zoo's ``record_video`` as a process, which would know only sb3-contrib's TRPO."""

    def own_call(command: Any, *args: Any, **kwargs: Any) -> int:
        if isinstance(command, list) and command[1:3] == ["-m", "rl_zoo3.record_video"]:
            command = [sys.executable, "-m", "sb3_trpo", "record_video", *command[3:]]
        return call(command, *args, **kwargs)

    return own_call


def _film_as_trained(create_test_env: Callable[..., Any]) -> Callable[..., Any]:
    """``record_video`` has the ``env_kwargs`` of the training's command line only, ``enjoy`` also the hyperparameters'."""

    def create(*args: Any, **kwargs: Any) -> Any:
        saved = (kwargs.get("hyperparams") or {}).get("env_kwargs") or {}
        return create_test_env(*args, **{**kwargs, "env_kwargs": {**saved, **(kwargs.get("env_kwargs") or {})}})

    return create


def _evaluate_as_trained(create_envs: Callable[..., Any]) -> Callable[..., Any]:
    """An evaluation has the ``env_kwargs`` of the command line only, the training also the hyperparameters'."""

    def create(manager: Any, n_envs: int, eval_env: bool = False, no_log: bool = False) -> Any:
        if manager._eval_env_kwargs_args is None:
            manager.eval_env_kwargs = manager.env_kwargs
        return create_envs(manager, n_envs, eval_env, no_log)

    return create


def _latest_with_a_model(get_latest_run_id: Callable[..., int]) -> Callable[..., int]:
    """A search, and a training that was refused or has just begun, leave a folder without a model."""

    def latest(log_path: str, env_name: str) -> int:
        folders = [path.parent for path in Path(log_path).glob(f"{env_name}_*/*.zip")]
        ids = [folder.name.removeprefix(f"{env_name}_") for folder in folders]
        return max((int(run) for run in ids if run.isdigit()), default=0) or get_latest_run_id(log_path, env_name)

    return latest

"""
Patches to rl_zoo3 2.9, for places where it treats this package differently from its built-in algorithms, evaluates with
other settings than it trained with, or fails with newer releases of the Hugging Face Hub's packages.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_trpo.command_line.evaluations import EvaluationsRead, check_results
from sb3_trpo.command_line.expressions import explained
from sb3_trpo.command_line.hub_card import with_own_card
from sb3_trpo.command_line.untrusted import load_plain_results, load_plain_yaml
from sb3_trpo.envs.dead_workers import end_workers
from sb3_trpo.processes.launch import is_launched
from sb3_trpo.reading.policy_files import load_vec_normalize
from sb3_trpo.reading.trust import all_files_trusted
from sb3_trpo.saving.atomic import written_aside
from sb3_trpo.saving.resume_callback import ResumeCallback


@contextmanager
def patched_zoo(
    trusted: bool = False,
    own_packages: Sequence[str] = (),
    masked: bool = False,
    command: str = "",
    options: Sequence[str] = (),
) -> Iterator[None]:
    """
    Patch the Zoo while a command runs.

    Video recording then knows this package, environments are made as in the training, the latest run is the latest that
    has a model, models keep their own statistics of ``VecNormalize``, files are replaced whole or not at all, and a training
    that fails saves its model. Plots say which runs they leave out, and errors name the option. Nothing in a saved file runs,
    unless the files are trusted.

    :param trusted: whether saved files may run the code that they contain
    :param own_packages: packages that the user names on the command line
    :param masked: whether the models need action masks
    :param command: the command, such as ``train``
    :param options: its options
    """
    import rl_zoo3  # here, because only the commands need it
    from huggingface_hub import repocard
    from rl_zoo3 import exp_manager, utils
    from rl_zoo3.exp_manager import ExperimentManager

    from sb3_trpo.command_line.normalization import ChosenModel, SaveBestStatistics, continue_normalization

    chosen = ChosenModel()
    with ExitStack() as stack:
        stack.enter_context(all_files_trusted(trusted))
        if not trusted:
            stack.enter_context(_replaced(yaml, "load", load_plain_yaml(own_packages)))
            if command == "plot_from_file":
                stack.enter_context(_replaced(pickle, "load", load_plain_results))
            stack.enter_context(_replaced(VecNormalize, "load", lambda _: staticmethod(load_vec_normalize)))
        stack.enter_context(_replaced(repocard, "metadata_save", with_own_card))
        _explain_plots(stack, command, options)
        stack.enter_context(_replaced(utils.StoreDict, "__call__", explained))
        stack.enter_context(_replaced(np, "savez", _savez_whole))
        stack.enter_context(_replaced(VecNormalize, "save", lambda _: _save_statistics_whole))
        stack.enter_context(_replaced(SubprocVecEnv, "close", _close_without_waiting))
        stack.enter_context(_replaced(exp_manager, "CheckpointCallback", lambda cls: partial(cls, save_vecnormalize=True)))
        stack.enter_context(_replaced(exp_manager, "SaveVecNormalizeCallback", lambda _: SaveBestStatistics))
        stack.enter_context(_replaced(ExperimentManager, "_maybe_normalize", continue_normalization))
        stack.enter_context(_replaced(ExperimentManager, "save_trained_model", _statistics_before_the_model))
        stack.enter_context(_replaced(ExperimentManager, "learn", _save_after_an_error))
        stack.enter_context(_replaced(utils, "get_model_path", chosen.remember))
        for module in (rl_zoo3, utils):  # `enjoy` imports it from the package
            stack.enter_context(_replaced(module, "create_test_env", chosen.normalize))
        stack.enter_context(_replaced(subprocess, "call", _record_with_ours(trusted)))
        stack.enter_context(_replaced(utils, "create_test_env", _record_as_trained))
        if masked:
            _pass_masks(stack, (rl_zoo3, utils))
        stack.enter_context(_replaced(utils, "get_latest_run_id", _latest_with_a_model))
        stack.enter_context(_replaced(ExperimentManager, "create_envs", _evaluate_as_trained))
        yield


def _explain_plots(stack: ExitStack, command: str, options: Sequence[str]) -> None:
    """Let the plots of evaluations say which runs they leave out or cannot draw."""
    if command == "all_plots":
        from matplotlib import pyplot

        evaluations = EvaluationsRead(options)
        stack.enter_context(_replaced(np, "load", evaluations.remember))
        stack.enter_context(_replaced(pyplot, "legend", evaluations.report))
    if command == "plot_from_file":
        stack.enter_context(_replaced(pickle, "load", _checked_results(options)))


def _checked_results(options: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a patch of ``pickle.load`` that checks the first file: later ones are merged into it."""

    def patch(load: Callable[..., Any]) -> Callable[..., Any]:
        seen: list[str] = []

        def patched(stream: Any, **kwargs: Any) -> Any:
            results = load(stream, **kwargs)
            path = str(getattr(stream, "name", "the file"))
            if not seen:
                check_results(results, options, path)
            seen.append(path)
            return results

        return patched

    return patch


def _pass_masks(stack: ExitStack, modules: Sequence[Any]) -> None:
    """Let models receive action masks in evaluations and in the scripts that make their environments in some modules."""
    from stable_baselines3.common import callbacks

    from sb3_trpo.algorithms.maskable import MaskableTRPO
    from sb3_trpo.command_line.masks import MaskedEvaluation

    evaluation = MaskedEvaluation()
    stack.enter_context(_replaced(MaskableTRPO, "predict", evaluation.predict))
    stack.enter_context(_replaced(callbacks, "evaluate_policy", evaluation.evaluate))
    for module in modules:
        stack.enter_context(_replaced(module, "create_test_env", evaluation.remember))


@contextmanager
def _replaced(owner: Any, name: str, patch: Callable[[Callable[..., Any]], Any]) -> Iterator[None]:
    before = vars(owner)[name]  # a static method stays one
    setattr(owner, name, patch(getattr(owner, name)))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _record_with_ours(trusted: bool) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make ``record_training`` start our ``record_video``: the Zoo's knows only sb3-contrib's TRPO."""

    def patch(call: Callable[..., int]) -> Callable[..., int]:
        def patched_call(command: Any, *args: Any, **kwargs: Any) -> int:
            if isinstance(command, list) and command[1:3] == ["-m", "rl_zoo3.record_video"]:
                trust = ["--trusted"] if trusted else []
                command = [sys.executable, "-m", "sb3_trpo", "record_video", *trust, *command[3:]]
            return call(command, *args, **kwargs)

        return patched_call

    return patch


def _record_as_trained(create_test_env: Callable[..., Any]) -> Callable[..., Any]:
    """Add the hyperparameters' ``env_kwargs``: ``record_video`` reads only those of the training's command line."""

    def create(*args: Any, **kwargs: Any) -> Any:
        saved = (kwargs.get("hyperparams") or {}).get("env_kwargs") or {}
        return create_test_env(*args, **{**kwargs, "env_kwargs": {**saved, **(kwargs.get("env_kwargs") or {})}})

    return create


def _evaluate_as_trained(create_envs: Callable[..., Any]) -> Callable[..., Any]:
    """Add the hyperparameters' ``env_kwargs``: an evaluation reads only those of the command line."""

    def create(manager: Any, n_envs: int, eval_env: bool = False, no_log: bool = False) -> Any:
        if manager._eval_env_kwargs_args is None:
            manager.eval_env_kwargs = manager.env_kwargs
        return create_envs(manager, n_envs, eval_env, no_log)

    return create


def _latest_with_a_model(get_latest_run_id: Callable[..., int]) -> Callable[..., int]:
    """Skip folders without a model, which searches leave, and trainings that were refused or have just begun."""

    def latest(log_path: str, env_name: str) -> int:
        folders = [path.parent for path in Path(log_path).glob(f"{env_name}_*/*.zip")]
        ids = [folder.name.removeprefix(f"{env_name}_") for folder in folders]
        return max((int(run) for run in ids if run.isdigit()), default=0) or get_latest_run_id(log_path, env_name)

    return latest


def _savez_whole(savez: Callable[..., None]) -> Callable[..., None]:
    """Write ``evaluations.npz`` whole or not at all."""

    def patched(file: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(file, str | os.PathLike):
            return savez(file, *args, **kwargs)
        name = os.fspath(file)
        with written_aside(name if name.endswith(".npz") else f"{name}.npz") as aside:
            savez(aside, *args, **kwargs)

    return patched


def _save_statistics_whole(statistics: VecNormalize, save_path: str) -> None:
    with written_aside(save_path) as aside:
        pickle.dump(statistics, aside)


def _close_without_waiting(close: Callable[[SubprocVecEnv], None]) -> Callable[[SubprocVecEnv], None]:
    """Close an environment of which a worker has ended: SB3 would wait for an answer."""

    def patched(env: SubprocVecEnv) -> None:
        if not env.closed and not all(process.is_alive() for process in env.processes):
            end_workers(env)
        try:
            close(env)
        except (EOFError, OSError):  # one ended just now
            end_workers(env)

    return patched


def _statistics_before_the_model(save: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Write the final statistics first: after a kill there is no final model that seems to have those of the best."""

    def patched(manager: Any, model: Any) -> None:
        if manager.normalize:
            model.get_vec_normalize_env().save(os.path.join(manager.params_path, "vecnormalize.pkl"))
        save(manager, model)

    return patched


def _save_after_an_error(learn: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """
    Save the model of a training that fails, as the Zoo does after Ctrl-C.

    Not if several processes will go on from their last checkpoint: the final model would say that the run is finished.
    """

    def patched(manager: Any, model: Any) -> None:
        try:
            learn(manager, model)
        except Exception:
            goes_on = is_launched() and any(isinstance(callback, ResumeCallback) for callback in manager.callbacks)
            if model.num_timesteps > 0 and not goes_on:
                manager.save_trained_model(model)
            raise

    return patched


def patch_hub() -> None:
    """
    Let the Zoo's ``push_to_hub`` and ``load_from_hub`` work with newer releases of the Hub's packages.

    rl_zoo3 2.9 imports ``generate_metadata`` from the Hub integration; release 3.2 of that has a private function instead,
    which returns an object. The Zoo also expects an ``HTTPError`` if a model has no ``VecNormalize`` file.
    """
    from huggingface_hub.errors import EntryNotFoundError  # here, because only the Hub needs them
    from requests.exceptions import HTTPError

    integration = import_module("huggingface_sb3.push_to_hub")  # the package has a function of this name
    if not hasattr(integration, "generate_metadata"):
        private = integration._generate_metadata
        vars(integration)["generate_metadata"] = lambda *args: private(*args).to_dict()
    package, load = import_module("huggingface_sb3"), import_module("huggingface_sb3.load_from_hub").load_from_hub

    def load_from_hub(repo_id: str, filename: str) -> str:
        try:
            return str(load(repo_id, filename))
        except EntryNotFoundError as error:
            raise HTTPError(str(error)) from error

    vars(package)["load_from_hub"] = load_from_hub

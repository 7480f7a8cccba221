"""The state of a run between two updates, with which the same program goes on as if it had never been interrupted."""

import copy
import io
import platform
import time
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3 as sb3
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trpo.saving.callback_states import (
    callback_states,
    logger_state,
    plain_attributes,
    restore_callbacks,
    restore_logger,
)
from sb3_trpo.snapshots.environments import Environments
from sb3_trpo.snapshots.plain_data import thaw
from sb3_trpo.snapshots.random_generators import SpaceGenerators, global_state, set_global_state

_OF_THE_PROGRAM = frozenset(
    ["start_time", "tensorboard_log", "verbose", "n_envs", "_total_timesteps", "_custom_logger", "policy_kwargs"]
)
"""Attributes of a model that the program sets anew, or that are saved otherwise."""
_MOMENTS = ("observation_moments", "return_moments")
_NOISE = ("exploration_mat", "exploration_matrices")
_EQUAL_IN_ALL_RANKS = ("moments", "policy", "optimizer", "logger", "seconds")


def describe_run(model: OnPolicyAlgorithm, n_envs_of_ranks: Sequence[int] = ()) -> dict[str, Any]:
    """
    Describe what a run that goes on must have in common with the one that was saved.

    :param model: the model
    :param n_envs_of_ranks: number of environments of each process; empty: there is one process
    :return: numbers and texts by name
    """
    packages = {"stable-baselines3": sb3, "torch": th, "numpy": np, "gymnasium": gymnasium}
    versions = {name: str(package.__version__) for name, package in packages.items()}
    return {
        "class": _full_name(type(model)),
        "n_envs": model.n_envs,
        "n_envs_of_ranks": n_envs_of_ranks or [model.n_envs],
        "versions": versions | {"python": platform.python_version()},
        "threads": th.get_num_threads(),
        "device": str(model.device),
    }


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def check_same_class(about: dict[str, Any], cls: type[OnPolicyAlgorithm]) -> None:
    """
    Compare a class with that of a saved run.

    :param about: a result of :func:`describe_run`
    :param cls: the class of the model that is to go on
    :raises ValueError: if it is another one
    """
    if about["class"] != _full_name(cls):
        raise ValueError(f"the run in `folder` is one of {about['class']}, not of {_full_name(cls)}: call its `resume`")


def check_same_run(about: dict[str, Any], model: OnPolicyAlgorithm, rank: int = 0) -> None:
    """
    Compare a model with the description of a saved run, and warn of differences that change the last digits.

    :param about: a result of :func:`describe_run`
    :param model: the model that goes on
    :param rank: number of this process
    :raises ValueError: if it has another number of environments
    """
    now = describe_run(model)
    saved_envs = about.get("n_envs_of_ranks", [about["n_envs"]])[rank]
    if now["n_envs"] != saved_envs:
        raise ValueError(f"`env` must have {saved_envs} environments, as the run in `folder` has, not {now['n_envs']}")
    saved = {**about["versions"], "threads": about["threads"], "device": about["device"]}
    present = {**now["versions"], "threads": now["threads"], "device": now["device"]}
    changed = [f"{name} {saved[name]} → {present[name]}" for name in present if present[name] != saved.get(name)]
    if changed:
        message = f"the run goes on, but not bit for bit, because these have changed: {', '.join(changed)}"
        warnings.warn(message, UserWarning, stacklevel=3)


def model_file(model: OnPolicyAlgorithm) -> bytes:
    """
    Save a model as ``save`` does.

    :param model: the model
    :return: the content of the zip file
    """
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def save_run(
    model: OnPolicyAlgorithm, environments: Environments | None, callback: BaseCallback, without: type[BaseCallback]
) -> dict[str, Any]:
    """
    Save the state of a run at the start of a rollout.

    :param model: the model
    :param environments: its environments; None: their state cannot be saved
    :param callback: the callback that holds all others
    :param without: class of callbacks that have no state
    :return: plain data and tensors, to be written before anything changes them
    """
    distribution, interface = vars(model.policy.action_dist), vars(model)["_interface"]
    frozen: Any = vars(model).get("_frozen")
    return {
        "attributes": plain_attributes(model, _OF_THE_PROGRAM),
        "moments": {name: vars(getattr(model, name)) for name in _MOMENTS if hasattr(model, name)},
        "policy": dict(model.policy.state_dict()),
        "optimizer": model.policy.optimizer.state_dict(),
        "noise": {name: distribution[name] for name in _NOISE if name in distribution},
        "interface": interface.get_state(),
        "frozen": None if frozen is None else [tuple(part) for part in frozen.gathered()],
        "seconds": (time.time_ns() - model.start_time) / 1e9,
        "environments": None if environments is None else environments.get(),
        "spaces": SpaceGenerators([model]).get(),
        "callbacks": callback_states(callback, without),
        "logger": logger_state(model.logger),
        "generators": global_state(),
        "cuda": [part.numpy() for part in th.cuda.get_rng_state_all()] if model.device.type == "cuda" else [],
    }


def part_of_other_rank(state: dict[str, Any]) -> dict[str, Any]:
    """
    Select what another process than the first must save: all that is not equal in both.

    :param state: a result of :func:`save_run`
    :return: the part
    """
    return {name: value for name, value in state.items() if name not in _EQUAL_IN_ALL_RANKS}


def restore_weights(model: OnPolicyAlgorithm, state: dict[str, Any]) -> None:
    """
    Restore policy, optimizer and counters, which is all that a model needs outside of ``learn``.

    :param model: the model, loaded from the checkpoint
    :param state: a result of :func:`save_run`
    """
    state = copy.deepcopy({name: state[name] for name in ("attributes", "moments", "policy", "optimizer")})
    vars(model).update({name: thaw(value) for name, value in state["attributes"].items()})
    for name, moments in state["moments"].items():
        vars(getattr(model, name)).update(moments)
    model.policy.load_state_dict(state["policy"])
    model.policy.optimizer.load_state_dict(state["optimizer"])


def adopt_attributes(model: OnPolicyAlgorithm, state: dict[str, Any]) -> None:
    """
    Let the public attributes of a model take the place of those that were saved: the user may have set them since.

    :param model: the model
    :param state: a result of :func:`save_run`, which is changed
    """
    private = {name: value for name, value in state["attributes"].items() if name.startswith("_")}
    public = frozenset(name for name in vars(model) if not name.startswith("_"))
    present = plain_attributes(model, _OF_THE_PROGRAM | vars(model).keys() - public)
    state["attributes"] = private | present


def restore_run(model: OnPolicyAlgorithm, callback: BaseCallback, state: dict[str, Any], without: type[BaseCallback]) -> None:
    """
    Restore the state of a run at the start of its first rollout.

    :param model: the model, whose ``learn`` has reset the environments
    :param callback: the callback that holds all others
    :param state: a result of :func:`save_run`
    :param without: class of callbacks that have no state
    """
    assert model.env is not None
    fresh = {name: getattr(model, name) for name in ("_last_obs", "_last_episode_starts", "_last_original_obs")}
    restore_weights(model, state)
    model.start_time = time.time_ns() - int(1e9 * state["seconds"])
    if state["environments"] is None:
        warnings.warn("the environments of this run cannot be saved, so they were reset", UserWarning, stacklevel=2)
        vars(model).update(fresh)
    else:
        Environments(model.env).set(state["environments"])
        interface: Any = vars(model)["_interface"]
        interface.set_state(state["interface"])
        frozen: Any = vars(model).get("_frozen")
        if frozen is not None and state.get("frozen") is not None:
            frozen.restore(state["frozen"])
    for name, value in state["noise"].items():
        setattr(model.policy.action_dist, name, value.to(model.device))
    SpaceGenerators([model]).set(state["spaces"])
    if not restore_callbacks(callback, state["callbacks"], without):
        saved = ", ".join(part.kind.rpartition(".")[2] for part in state["callbacks"]) or "none"
        message = f"`callback` must be that of the saved run ({saved}); these callbacks begin anew"
        warnings.warn(message, UserWarning, stacklevel=2)
    restore_logger(model.logger, state["logger"])
    set_global_state(state["generators"])  # last, because the others may draw
    if state["cuda"]:
        th.cuda.set_rng_state_all([th.from_numpy(part) for part in state["cuda"]])

"""What a saved model is, read without unpickling it, and what of a PPO model TRPO takes over."""

import io
import json
import math
import pathlib
import zipfile
from collections.abc import Container, Sequence
from typing import Any, TypeGuard

import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import open_path

from sb3_trpo.arguments.hyperparameters import hyperparameter_names, make_schedule

PathLike = str | pathlib.Path | io.BufferedIOBase


def saved_names(path: PathLike) -> set[str]:
    """
    Names of the attributes in a saved model. A file object is left where it was.

    :param path: path to the zip file, with or without its suffix, or a file object
    :return: the names
    :raises ValueError: if it is no zip file
    """
    file = open_path(path, "r", suffix="zip")
    position = file.tell() if file is path else 0
    try:
        with zipfile.ZipFile(file) as archive:
            return set(json.loads(archive.read("data"))) if "data" in archive.namelist() else set()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a zip file, as saved models are") from error
    finally:
        if file is path:
            file.seek(position)
        else:
            file.close()


def is_trpo(names: set[str]) -> bool:
    """
    :param names: names of the saved attributes
    :return: whether a TRPO saved them: this one or sb3-contrib's
    """
    return not names.isdisjoint({"cg_max_steps", "cg_damping", "line_search_max_iter"})


def is_own(names: set[str]) -> bool:
    """
    :param names: names of the saved attributes
    :return: whether this TRPO saved them
    """
    return not names.isdisjoint({"line_search_accept_ratio", "fisher_sample_fraction", "cg_tol"})


def is_on_policy(names: set[str]) -> bool:
    """
    :param names: names of the saved attributes
    :return: whether PPO, A2C or another on-policy algorithm saved them
    """
    return "gae_lambda" in names


def has_trainable_policy(model: BaseAlgorithm) -> TypeGuard[OnPolicyAlgorithm]:
    """
    :param model: any model
    :return: whether it is on-policy and its policy is one that TRPO can train: actor-critic, neither recurrent nor masked
    """
    return (
        isinstance(model, OnPolicyAlgorithm)
        and isinstance(model.policy, ActorCriticPolicy)
        and not hasattr(model.policy, "lstm_actor")
    )


def load_on_policy(path: PathLike, device: th.device | str) -> BaseAlgorithm:
    """
    Load what PPO, A2C or another on-policy algorithm has saved.

    :param path: path to the zip file, or a file object
    :param device: device to load to
    :return: the model
    :raises ValueError: if the file holds another algorithm, or a policy that PPO cannot build
    """
    if not is_on_policy(saved_names(path)):
        raise ValueError(f"{path} does not hold a PPO model, nor another on-policy one")
    try:
        return PPO.load(path, device=device)
    except TypeError as error:
        raise ValueError(f"{path} holds a policy that PPO cannot build: {error}") from error


def averaged_kl_warning(model: Any, given: Container[str]) -> str | None:
    """
    What to say of a model that sb3-contrib saved: its TRPO averages the KL over the action dimensions, this one sums it.

    :param model: the model
    :param given: settings that the user chose
    :return: the message, with the settings that keep its trust region; None where both mean the same
    """
    space = model.action_space
    d = math.prod(space.shape) if isinstance(space, (spaces.Box, spaces.MultiBinary)) else 1
    saved = {"target_kl": make_schedule("target_kl", model.target_kl)(1.0), "cg_damping": model.cg_damping}
    scaled = [f"{name}={d * value:g}" for name, value in saved.items() if name not in given]
    if d == 1 or not scaled:
        return None
    return (
        f"This model was saved by sb3-contrib, which averages the KL over the {d} action dimensions; here it is "
        f"summed. To go on with the same trust region, pass {' and '.join(scaled)}."
    )


def transferred_settings(model: OnPolicyAlgorithm, own: Sequence[str]) -> dict[str, Any]:
    """
    The settings of a PPO or A2C model that mean the same in TRPO; of a TRPO model all.

    :param model: the model
    :param own: further arguments, of a variant of TRPO; taken where the model has them
    :return: keyword arguments of TRPO
    """
    names = ["n_steps", "gamma", "gae_lambda", "ent_coef", "use_sde", "sde_sample_freq", "policy_kwargs", "tensorboard_log"]
    names += ["rollout_buffer_class", "rollout_buffer_kwargs", "seed", "device", "verbose"]
    if is_own(set(vars(model))):
        names += ["learning_rate", *hyperparameter_names(), *(name for name in own if hasattr(model, name))]
    settings = {name: getattr(model, name) for name in names}
    settings["normalize_advantage"] = getattr(model, "normalize_advantage", True)
    settings["stats_window_size"] = model._stats_window_size
    return settings

"""Recognises saved models without unpickling them, loads them, and continues PPO models as TRPO."""

import io
import json
import math
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeGuard, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces

from sb3_trpo.arguments.hyperparameters import hyperparameter_names, make_schedule, refuse_unknown
from sb3_trpo.arguments.policies import why_not_trainable

PathLike = str | pathlib.Path | io.BufferedIOBase

M = TypeVar("M", bound=OnPolicyAlgorithm)


def saved_names(path: PathLike) -> set[str]:
    """
    Read the names of the attributes in a saved model. A file object keeps its position.

    :param path: path to the zip file, with or without its suffix, or a file object
    :return: the names
    :raises ValueError: if it is not a zip file
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
    Tell whether a TRPO saved a model: this package's or sb3-contrib's.

    :param names: names of the saved attributes
    :return: whether it did
    """
    return not names.isdisjoint({"cg_max_steps", "cg_damping", "line_search_max_iter"})


def is_own(names: set[str]) -> bool:
    """
    Tell whether this package's TRPO saved a model.

    :param names: names of the saved attributes
    :return: whether it did
    """
    return not names.isdisjoint({"line_search_accept_ratio", "fisher_sample_fraction", "cg_tol"})


def is_on_policy(names: set[str]) -> bool:
    """
    Tell whether PPO, A2C or another on-policy algorithm saved a model.

    :param names: names of the saved attributes
    :return: whether one did
    """
    return "gae_lambda" in names


def has_trainable_policy(model: BaseAlgorithm) -> TypeGuard[OnPolicyAlgorithm]:
    """
    Tell whether a model is on-policy and TRPO can train its policy: actor-critic, neither recurrent nor masked.

    :param model: any model
    :return: whether TRPO can
    """
    return isinstance(model, OnPolicyAlgorithm) and why_not_trainable(type(model.policy)) is None


def load_on_policy(path: PathLike, device: th.device | str) -> BaseAlgorithm:
    """
    Load a model that PPO, A2C or another on-policy algorithm has saved.

    :param path: path to the zip file, or a file object
    :param device: device to load to
    :return: the model
    :raises ValueError: if the file holds another algorithm, or a policy that PPO cannot build
    """
    if not is_on_policy(saved_names(path)):
        raise ValueError(f"{path} does not hold a PPO model or another on-policy model")
    try:
        return PPO.load(path, device=device)
    except TypeError as error:
        raise ValueError(f"{path} holds a policy that PPO cannot build: {error}") from error


def averaged_kl_warning(model: Any, given: Container[str]) -> str | None:
    """
    Write the warning for a model that sb3-contrib saved: its TRPO averages the KL over the action dimensions, ours sums it.

    :param model: the model
    :param given: names of the settings that the user chose
    :return: the message, with the settings that keep the model's trust region; None if both KLs mean the same
    """
    space = model.action_space
    d = math.prod(space.shape) if isinstance(space, (spaces.Box, spaces.MultiBinary)) else 1
    saved = {"target_kl": make_schedule("target_kl", model.target_kl)(1.0), "cg_damping": model.cg_damping}
    scaled = [f"{name}={d * value:g}" for name, value in saved.items() if name not in given]
    if d == 1 or not scaled:
        return None
    return (
        f"This model was saved by sb3-contrib, which averages the KL over the {d} action dimensions; here it is "
        f"summed. To keep the same trust region, pass {' and '.join(scaled)}."
    )


def transferred_settings(model: OnPolicyAlgorithm, own: Sequence[str]) -> dict[str, Any]:
    """
    Collect the settings of a PPO or A2C model that mean the same in TRPO, or all settings of a TRPO model.

    :param model: the model
    :param own: names of the arguments that a subclass of TRPO adds; taken over if the model has them
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


def load_trpo(cls: type[M], read: Callable[..., M], path: PathLike, attributes: dict[str, Any]) -> M:
    """
    Load a model that this package's TRPO or sb3-contrib's TRPO has saved.

    :param cls: the class of the model
    :param read: SB3's ``load`` of that class, with all arguments except the attributes to change
    :param path: path of the zip file, or a file object
    :param attributes: the attributes to change, by the names of the arguments
    :return: the model
    :raises ValueError: if the file holds another algorithm, or a hyperparameter is out of range
    :raises TypeError: for an unknown argument
    """
    names = saved_names(path)
    if not is_trpo(names):
        raise ValueError(
            f"{path} does not hold a TRPO model. To continue with the policy of a PPO model, use `TRPO.from_ppo(path, env)`."
        )
    refuse_unknown(attributes, cls, names)
    attributes = dict(attributes)
    if "stats_window_size" in attributes:  # its attribute has another name
        attributes["_stats_window_size"] = attributes.pop("stats_window_size")
    if attributes.get("rollout_buffer_kwargs", ()) is None:
        attributes["rollout_buffer_kwargs"] = {}
    from_contrib = not is_own(names)
    if from_contrib:
        attributes.setdefault("max_grad_norm", None)  # sb3-contrib saves the 0.0 that it does not use
    model = read(**attributes)
    message = averaged_kl_warning(model, attributes) if from_contrib else None
    if message:
        warnings.warn(message, UserWarning, stacklevel=3)
    return model


def continue_as_trpo(cls: type[M], model: BaseAlgorithm | PathLike, env: GymEnv | str | None, arguments: dict[str, Any]) -> M:
    """
    Make a TRPO model that continues with the policy of a trained PPO (or another on-policy) model.

    :param cls: the class of the new model
    :param model: the model, or the zip file of a PPO model
    :param env: environment for further training; None: the model's environment
    :param arguments: arguments of ``cls`` that take precedence over the model's settings
    :return: the TRPO model
    :raises ValueError: if TRPO cannot train the model's policy, if there is no environment, if its spaces differ from the
        model's, or if the arguments make another policy
    """
    if not isinstance(model, BaseAlgorithm):
        model = load_on_policy(model, arguments.get("device", "auto"))
    if not has_trainable_policy(model):
        raise ValueError(
            "`from_ppo` needs an on-policy model with neither recurrence nor masks, not a "
            f"{type(model).__name__} with a {type(model.policy).__name__}"
        )
    env = maybe_make_env(env, model.verbose) if env is not None else model.get_env()
    if env is None:
        raise ValueError("`from_ppo` needs an environment, and the model has none: pass `env`")
    env = cls._wrap_env(env, model.verbose)
    check_for_correct_spaces(env, model.observation_space, model.action_space)
    settings = transferred_settings(model, getattr(cls, "extra_arguments", ()))
    trpo = cls(type(model.policy), env, **{**settings, **arguments})
    try:
        trpo.policy.load_state_dict(model.policy.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the model's weights do not fit the policy that the arguments make: {error}") from error
    trained = {name: parameter.requires_grad for name, parameter in model.policy.named_parameters()}
    for name, parameter in trpo.policy.named_parameters():
        parameter.requires_grad_(trained[name])
    trpo.num_timesteps = model.num_timesteps
    return trpo

"""Recognises saved models, loads them without running them, and continues PPO models as TRPO."""

import io
import json
import math
import os
import pathlib
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeGuard, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import json_to_data, open_path
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces

from sb3_trpo.arguments.hyperparameters import hyperparameter_names, make_schedule, refuse_policy, refuse_unknown
from sb3_trpo.checks import BOOLEAN, check, described
from sb3_trpo.policies.maskable import is_contrib_maskable
from sb3_trpo.reading.archives import DamagedError
from sb3_trpo.reading.fields import read_fields, rebuild_field
from sb3_trpo.reading.pickles import NotRebuiltError
from sb3_trpo.reading.trust import is_trusted
from sb3_trpo.reading.weights import read_weights
from sb3_trpo.saving.atomic import SavePath
from sb3_trpo.saving.from_contrib import contrib_class, is_maskable_module, own_form
from sb3_trpo.saving.untrusted import check_entry_names, plain_copy, read_model

M = TypeVar("M", bound=OnPolicyAlgorithm)
N = TypeVar("N", bound=BaseAlgorithm)

_FIXED = ("n_envs", "observation_space", "action_space", "policy_class", "use_sde")
"""Arguments of ``load`` that tell the shape of saved weights, or of the environment that they are for."""


_LATER = ("normalize_observations", "normalize_returns", "scale_target_kl")
"""Arguments that neither sb3-contrib nor the first models of this package have: a model trained without goes on without."""


def saved_file(path: SavePath) -> str | pathlib.Path | io.BufferedIOBase:
    """
    Find the file of a saved model. A folder of the same name without the suffix is not in the way.

    :param path: path to the zip file, with or without its suffix, or a file object
    :return: the path, or the file object
    :raises IsADirectoryError: if the path is a folder, and no zip file has its name
    """
    if not isinstance(path, str | os.PathLike):
        return path
    path = pathlib.Path(path)
    if not path.is_dir():
        return path
    with_suffix = pathlib.Path(f"{path}.zip")
    if not with_suffix.is_file():
        raise IsADirectoryError(f"{path} is a folder, not a saved model, and there is no file {with_suffix}")
    return with_suffix


@contextmanager
def _opened(path: SavePath) -> Iterator[Any]:
    """Open a file for reading; a file object keeps its position and stays open."""
    file = open_path(saved_file(path), "r", suffix="zip")
    position = file.tell() if file is path else 0
    try:
        yield file
    finally:
        if file is path:
            file.seek(position)
        else:
            file.close()


def saved_names(path: SavePath, trusted: bool = False) -> set[str]:
    """
    Read the names of the attributes in a saved model, and check the file's sums. A file object keeps its position.

    :param path: path to the zip file, with or without its suffix, or a file object
    :param trusted: whether the file may take any amount of memory
    :return: the names
    :raises ValueError: if it is cut off, altered, or no saved model
    """
    return set(_saved_data(path, trusted))


def _saved_data(path: SavePath, trusted: bool = False) -> dict[str, Any]:
    """Read the attributes of a saved model as JSON, and check the file; see :func:`saved_names`."""
    with _opened(path) as file, _damage_named(path):
        return _data_in(file) if trusted else read_model(file)[1]


@contextmanager
def _damage_named(path: SavePath) -> Iterator[None]:
    """Let an error in reading a file name the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged or no saved model: {error}") from error


class _Source(NamedTuple):
    """
    Holds a saved model that SB3 can load.

    :param file: what SB3 reads: a copy without pickles, or a file that the user trusts
    :param objects: the custom objects to pass
    :param fixed: those of the user's that must be as in the file
    """

    file: Any
    objects: dict[str, Any]
    fixed: dict[str, Any]


def _source(
    path: SavePath,
    cls: type[Any],
    trusted: bool,
    custom_objects: dict[str, Any] | None,
    unused: Callable[[dict[str, Any]], Container[str]] = lambda data: (),
) -> _Source:
    """Read a saved model; unless the user trusts the file, make a copy without pickles, in memory."""
    check("trusted", trusted, BOOLEAN)
    if not isinstance(custom_objects, dict | None):
        raise ValueError(f"`custom_objects` must be a dict or None, not {described(custom_objects)}")
    given, trusted = custom_objects or {}, is_trusted(trusted)
    with _opened(path) as file, _damage_named(path):
        entries, data = ({}, _data_in(file)) if trusted else read_model(file)
    fixed = _fixed_objects(given, data, _is_unpickled if trusted else _is_rebuilt)
    objects = {name: value for name, value in given.items() if name not in fixed}
    if trusted:
        return _Source(path, objects, fixed)
    try:
        copy = plain_copy(entries, data, cls, objects, unused(data))
    except DamagedError as error:
        raise ValueError(f"{path} is damaged or no saved model: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not loaded: {error}") from error
    return _Source(copy.file, {**objects, **copy.values}, fixed)


def saved_steps(path: SavePath) -> int:
    """
    Read the number of env steps that a saved model has taken.

    :param path: path to the zip file
    :return: the number; -1 if the file does not tell
    :raises ValueError: if it is cut off, altered, or no saved model
    """
    steps = _saved_data(path).get("num_timesteps")
    return steps if isinstance(steps, int) else -1


def _data_in(file: Any) -> dict[str, Any]:
    """Read the attributes of a file of any size, and raise an error if something of a model is missing or altered."""
    with zipfile.ZipFile(file) as archive:
        check_entry_names(archive.namelist())
        altered = archive.testzip()
        if altered is not None:
            raise ValueError(f"the sum of its entry {altered!r} is wrong")
        return read_fields(archive.read("data"))


def _read_weights(path: SavePath, source: _Source, read: Callable[..., N]) -> N:
    """Load a model; if that fails because torch cannot read the weights, say that the file is damaged."""
    try:
        return read(source.file)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError):
        with _opened(source.file) as file, zipfile.ZipFile(file) as archive:
            others = (name for name in archive.namelist() if name.endswith(".pth"))
            for name in ("policy.pth", "policy.optimizer.pth", *others):
                try:
                    read_weights(archive.read(name))
                except (ValueError, KeyError) as error:
                    raise ValueError(f"{path} is damaged or no saved model: torch cannot read {name!r} ({error})") from error
        raise


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


def has_trainable_policy(model: BaseAlgorithm, cls: type[Any]) -> TypeGuard[OnPolicyAlgorithm]:
    """
    Tell whether a model is on-policy and a class of this package can train its policy.

    :param model: any model
    :param cls: the class, whose ``why_not_policy`` is asked
    :return: whether it can
    """
    return isinstance(model, OnPolicyAlgorithm) and cls.why_not_policy(type(model.policy)) is None


def load_on_policy(
    path: SavePath,
    device: th.device | str,
    trusted: bool = False,
    custom_objects: dict[str, Any] | None = None,
    own: Sequence[str] = (),
) -> BaseAlgorithm:
    """
    Load a model that PPO, A2C, sb3-contrib's MaskablePPO or another on-policy algorithm has saved; nothing in the file runs.

    :param path: path to the zip file, or a file object
    :param device: device to load to
    :param trusted: whether to let the file run whatever code it contains
    :param custom_objects: objects that replace those of the file
    :param own: names of the arguments that a subclass of TRPO adds
    :return: the model
    :raises ValueError: if the file is damaged, holds another algorithm or a policy that PPO cannot build, or needs code to be
        rebuilt
    """
    path = saved_file(path)
    data = _saved_data(path, is_trusted(trusted))
    names = set(data)
    if not is_on_policy(names):
        raise ValueError(f"{path} does not hold a PPO model or another on-policy model")
    parts = [data.get(name) for name in ("policy_class", "rollout_buffer_class")]
    masked = any(isinstance(part, dict) and is_maskable_module(str(part.get("__module__"))) for part in parts)
    read: type[BaseAlgorithm] = contrib_class("MaskablePPO") if masked else PPO
    used = _transferred_names(names, own)
    source = _source(path, read, trusted, custom_objects, lambda data: set(data) - set(used))
    try:
        model = _read_weights(path, source, partial(read.load, device=device, custom_objects=source.objects))
    except TypeError as error:
        raise ValueError(f"{path} holds a policy that PPO cannot build: {error}") from error
    _refuse_changes(model, source.fixed)
    return model


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


def _transferred_names(names: set[str], own: Sequence[str]) -> list[str]:
    """List the attributes that TRPO takes over from a model with the given ones."""
    shared = ["n_steps", "gamma", "gae_lambda", "ent_coef", "use_sde", "sde_sample_freq", "policy_kwargs", "tensorboard_log"]
    shared += ["rollout_buffer_class", "rollout_buffer_kwargs", "seed", "device", "verbose"]
    return [*shared, "learning_rate", *hyperparameter_names(), *own] if is_own(names) else shared


def transferred_settings(model: OnPolicyAlgorithm, own: Sequence[str]) -> dict[str, Any]:
    """
    Collect the settings of a PPO or A2C model that mean the same in TRPO, or all settings of a TRPO model.

    :param model: the model
    :param own: names of the arguments that a subclass of TRPO adds; taken over if the model has them
    :return: keyword arguments of TRPO
    """
    settings: dict[str, Any] = dict.fromkeys(_LATER, False)
    settings |= {name: getattr(model, name) for name in _transferred_names(set(vars(model)), own) if hasattr(model, name)}
    settings["normalize_advantage"] = getattr(model, "normalize_advantage", True)
    settings["stats_window_size"] = model._stats_window_size
    return settings


def load_trpo(
    cls: type[M],
    read: Callable[..., M],
    path: SavePath,
    attributes: dict[str, Any],
    custom_objects: dict[str, Any] | None,
    trusted: bool = False,
) -> M:
    """
    Load a model that this package's TRPO or sb3-contrib's TRPO has saved; nothing in the file runs.

    :param cls: the class of the model
    :param read: SB3's ``load`` of that class; it is called with the path, the custom objects and the attributes to change
    :param path: path of the zip file, or a file object
    :param attributes: the attributes to change, by the names of the arguments
    :param custom_objects: objects that replace those of the file
    :param trusted: whether to let the file run whatever code it contains
    :return: the model
    :raises ValueError: if the file is damaged or holds another algorithm, needs code to be rebuilt, a hyperparameter is out of
        range, or an argument cannot change with saved weights
    :raises TypeError: for an unknown argument
    """
    path = saved_file(path)
    names = saved_names(path, is_trusted(trusted))
    if not is_trpo(names):
        raise ValueError(
            f"{path} does not hold a TRPO model. To continue with the policy of a PPO model, use "
            f"`{cls.__name__}.from_ppo(path, env)`."
        )
    refuse_unknown(attributes, cls, names)
    source = _source(path, cls, trusted, custom_objects, lambda data: attributes)
    fixed = {**source.fixed, **{name: attributes[name] for name in _FIXED if name in attributes}}
    check("use_sde", fixed.get("use_sde", False), BOOLEAN)
    attributes = {name: value for name, value in attributes.items() if name not in fixed}
    if "stats_window_size" in attributes:  # its attribute has another name
        attributes["_stats_window_size"] = attributes.pop("stats_window_size")
    if attributes.get("rollout_buffer_kwargs", ()) is None:
        attributes["rollout_buffer_kwargs"] = {}
    for name in _LATER:
        if name not in names:
            attributes.setdefault(name, False)
    from_contrib = not is_own(names)
    if from_contrib:
        attributes.setdefault("max_grad_norm", None)  # sb3-contrib saves the 0.0 that it does not use
        attributes.setdefault("fisher_sample_fraction", 1.0)
    model = _read_weights(path, source, partial(read, custom_objects=source.objects, **attributes))
    _refuse_changes(model, fixed)
    message = averaged_kl_warning(model, attributes) if from_contrib else None
    if message:
        warnings.warn(message, UserWarning, stacklevel=3)
    return model


def _fixed_objects(given: dict[str, Any], data: dict[str, Any], is_readable: Callable[[Any], bool]) -> dict[str, Any]:
    """
    Choose the custom objects that cannot change with saved weights, where the file's own can be read.

    A policy class is not among them: it may have moved since, and the weights must fit the one given.
    """
    names = [name for name in given if name in _FIXED and name != "policy_class" and name in data]
    return {name: given[name] for name in names if is_readable(data[name])}


def _is_rebuilt(saved: Any) -> bool:
    """Tell whether an attribute can be rebuilt without running it."""
    try:
        rebuild_field(saved)
    except NotRebuiltError:
        return False
    return True


def _is_unpickled(saved: Any) -> bool:
    """Tell whether the JSON of an attribute gives a value; the pickled ones do not if a class is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "it" in json_to_data(json.dumps({"it": saved}))
        except Exception:  # unpickling may raise anything
            return False


def _refuse_changes(model: BaseAlgorithm, fixed: dict[str, Any]) -> None:
    """Refuse arguments that cannot change with saved weights, unless they are as they were saved."""
    for name, value in fixed.items():
        kept = getattr(model, name)
        if name == "policy_class" and isinstance(value, str):
            value = model.policy_aliases.get(value, value)
        if value != kept:
            whose = "the environment's" if name == "n_envs" and model.env is not None else "that of the file"
            raise ValueError(
                f"`{name}` = {described(fixed[name])} cannot change with saved weights: {whose} is {described(kept)}; "
                "leave it out, or pass that"
            )


def continue_as_trpo(
    cls: type[M],
    model: BaseAlgorithm | SavePath,
    env: GymEnv | str | None,
    arguments: dict[str, Any],
    trusted: bool = False,
    custom_objects: dict[str, Any] | None = None,
) -> M:
    """
    Make a TRPO model that continues with the policy of a trained PPO (or another on-policy) model.

    :param cls: the class of the new model
    :param model: the model, or the zip file of a PPO model
    :param env: environment for further training; None: the model's environment
    :param arguments: arguments of ``cls`` that take precedence over the model's settings
    :param trusted: whether to let the file run whatever code it contains
    :param custom_objects: objects that replace those of the file
    :return: the TRPO model
    :raises ValueError: if TRPO cannot train the model's policy, if there is no environment, if its spaces differ from the
        model's, or if the arguments make another policy
    :raises TypeError: for an unknown argument, and for ``policy``
    """
    refuse_policy(arguments, "model")
    if not isinstance(model, BaseAlgorithm):
        device, own = arguments.get("device", "auto"), getattr(cls, "extra_arguments", ())
        model = load_on_policy(model, device, trusted, custom_objects, own)
    if not has_trainable_policy(model, cls):
        kind, masks = getattr(cls, "source_models", ""), is_contrib_maskable(type(model.policy))
        raise ValueError(
            f"`from_ppo` needs an on-policy model {kind}, not a {type(model).__name__} with a {type(model.policy).__name__}"
            f"{'; use MaskableTRPO.from_ppo' if masks else ''}"
        )
    env = maybe_make_env(env, model.verbose) if env is not None else model.get_env()
    if env is None:
        raise ValueError("`from_ppo` needs an environment, and the model has none: pass `env`")
    env = cls._wrap_env(env, model.verbose)
    check_for_correct_spaces(env, model.observation_space, model.action_space)
    settings = transferred_settings(model, getattr(cls, "extra_arguments", ()))
    policy_class, settings = own_form(type(model.policy), settings, model.action_space)
    trpo = cls(policy_class, env, **{**settings, **arguments})
    try:
        trpo.policy.load_state_dict(model.policy.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the model's weights do not fit the policy that the arguments make: {error}") from error
    trained = {name: parameter.requires_grad for name, parameter in model.policy.named_parameters()}
    for name, parameter in trpo.policy.named_parameters():
        parameter.requires_grad_(trained[name])
    trpo.num_timesteps = model.num_timesteps
    return trpo

"""Checks of the hyperparameters: each error names the parameter, its value and what is allowed."""

import difflib
import inspect
import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_trpo.checks import (
    BOOLEAN,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    UNIT,
    Rule,
    check,
    described,
    integer,
    is_integer,
    is_number,
    number,
    optional,
    to_float,
)
from sb3_trpo.step.trust_region import RULES as STEP_RULES

_PPO_ARGUMENTS = {
    "clip_range": "the KL bound replaces it: set `target_kl`",
    "clip_range_vf": "values are not clipped: leave it out, or bound the critic's gradient with `max_grad_norm`",
    "n_epochs": "the policy takes one step per rollout; for the passes of the critic set `n_critic_updates`",
    "vf_coef": "the critic has its own loss and its own fit: set `learning_rate` and `n_critic_updates`",
    "rms_prop_eps": "set `policy_kwargs=dict(optimizer_kwargs=dict(eps=...))` for the critic's optimizer",
    "use_rms_prop": "set `policy_kwargs=dict(optimizer_class=...)` for the critic's optimizer",
}


def refuse_arguments(arguments: dict[str, Any], cls: type, without: frozenset[str] = frozenset()) -> None:
    """
    Refuse keyword arguments that an algorithm does not have, with a hint for arguments of PPO and A2C and for misspelt ones.

    :param arguments: unknown keyword arguments
    :param cls: the class of the model
    :param without: arguments of the class that are not accepted either, so no hint names them
    :raises TypeError: if there are any, naming the first
    """
    _refuse_ppo_arguments(arguments)
    for name in arguments:
        raise TypeError(f"{cls.__name__} has no argument {name!r}{did_you_mean(name, _argument_names(cls) - without)}")


def refuse_policy(arguments: dict[str, Any], owner: str) -> None:
    """
    Refuse the argument ``policy`` where there is a policy already.

    :param arguments: any keyword arguments
    :param owner: the owner of that policy, "file" or "model"
    :raises TypeError: if it is among them
    """
    if "policy" in arguments:
        raise TypeError(f"the {owner} has its own policy: leave out `policy` = {described(arguments['policy'])}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """
    Write the end of the error message for a misspelt name.

    :param name: the name
    :param names: the right names
    :return: the question whether the nearest of them is meant; nothing if none is near
    """
    nearest = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _argument_names(cls: type) -> set[str]:
    """Collect the arguments that a class and its parents take, as far as they are this package's or the user's."""
    names: set[str] = set()
    for base in cls.__mro__[: cls.__mro__.index(OnPolicyAlgorithm)]:
        if "__init__" in vars(base):
            parameters = inspect.signature(base).parameters.values()
            names.update(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return names - {"_init_setup_model"}


def _refuse_ppo_arguments(arguments: dict[str, Any]) -> None:
    """
    Refuse the keyword arguments that only PPO and A2C have.

    :param arguments: any keyword arguments
    :raises TypeError: naming the argument and its replacement
    """
    for name in _PPO_ARGUMENTS.keys() & arguments.keys():
        raise TypeError(f"TRPO has no argument {name!r}: {_PPO_ARGUMENTS[name]}")


def refuse_unknown(arguments: dict[str, Any], cls: type, known: set[str]) -> None:
    """
    Refuse keyword arguments that neither a class nor the model that it loads has.

    :param arguments: any keyword arguments
    :param cls: the class of the model
    :param known: names of the model's attributes
    :raises TypeError: naming the argument
    """
    refuse_policy(arguments, "file")
    _refuse_ppo_arguments(arguments)  # some are attributes of every on-policy model
    known = (known | _argument_names(cls)) - {"_init_setup_model"}
    unknown = {name: value for name, value in arguments.items() if name not in known}
    refuse_arguments(unknown, cls, without=frozenset({"policy"}))


SCHEDULED: dict[str, Rule] = {
    "learning_rate": NOT_NEGATIVE._replace(allowed="a finite number >= 0"),
    "target_kl": POSITIVE._replace(allowed="a finite number > 0 (nats)"),
    "ent_coef": NOT_NEGATIVE._replace(allowed="a finite number >= 0"),
}
"""The hyperparameters that may be schedules, and what each may be as a number."""


def make_schedule(name: str, value: Any) -> Schedule:
    """
    Turn a hyperparameter into a schedule of the progress remaining (1 to 0).

    :param name: name of the hyperparameter
    :param value: a number, a callable, or RL Zoo's ``"lin_0.02"``, which decays to 0
    :return: the schedule
    :raises ValueError: naming the hyperparameter, for anything else
    """
    rule = SCHEDULED[name]
    if isinstance(value, str):
        prefix, _, number = value.partition("_")
        try:
            start = float(number)
        except ValueError:
            start = math.nan
        if prefix == "lin" and rule.test(start):
            return FloatSchedule(LinearSchedule(start=start, end=0.0, end_fraction=1.0))
    elif callable(value):
        return FloatSchedule(value)
    elif rule.test(value):
        return FloatSchedule(to_float(value))
    no_bound = name == "target_kl" and value is None
    hint = " None switches off PPO's early stopping; TRPO cannot take a step without a KL bound." if no_bound else ""
    raise ValueError(
        f"`{name}` must be {rule.allowed}, a schedule, or a string such as 'lin_0.02', not {described(value)}.{hint}"
    )


def scheduled(name: str, schedule: Schedule, progress: float) -> float:
    """
    Evaluate a schedule and check its value.

    :param name: name of the hyperparameter
    :param schedule: maps the progress remaining to the value
    :param progress: progress remaining, 1 to 0
    :return: the value
    :raises ValueError: naming the hyperparameter, if its value is not a finite number >= 0
    """
    try:
        value = float(schedule(progress))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the schedule `{name}` must map a number to a number: {error}") from error
    if not 0.0 <= value < math.inf:
        raise ValueError(f"the schedule `{name}` must give finite numbers >= 0, not {value} at {progress=:g}")
    return value


_RULES: dict[str, Rule] = {
    "n_steps": integer(1),
    "batch_size": integer(1),
    "gamma": UNIT,
    "gae_lambda": UNIT,
    "cg_max_steps": STEP_RULES["cg_max_steps"],
    "cg_damping": STEP_RULES["damping"],
    "cg_tol": STEP_RULES["cg_tol"],
    "line_search_shrinking_factor": STEP_RULES["shrinking_factor"],
    "line_search_max_iter": STEP_RULES["max_iter"],
    "line_search_accept_ratio": STEP_RULES["accept_ratio"],
    "n_critic_updates": integer(0),
    "sub_sampling_factor": integer(1),
    "fisher_sample_fraction": number("in (0, 1]", lambda v: 0.0 < v <= 1.0),
    "max_grad_norm": optional(POSITIVE),
    "chunk_size": optional(integer(1)),
    "normalize_advantage": BOOLEAN,
    "clipped_gaussian": BOOLEAN,
    "normalize_observations": BOOLEAN,
    "normalize_returns": BOOLEAN,
    "scale_target_kl": BOOLEAN,
    "distributed": BOOLEAN,
    "freeze_normalization": optional(BOOLEAN),
    "use_sde": BOOLEAN,
    "sde_sample_freq": Rule("-1 or an integer >= 1", lambda v: is_integer(v, 1) or (is_number(v) and v == -1)),
    "seed": SEED,
    "policy_kwargs": Rule("None or a dict", lambda v: isinstance(v, dict)),  # SB3 has replaced None by {}
    "rollout_buffer_class": Rule(
        "None or a class of rollout buffers",
        lambda v: v is None or (isinstance(v, type) and issubclass(v, BaseBuffer) and not issubclass(v, ReplayBuffer)),
    ),
    "rollout_buffer_kwargs": optional(Rule("a dict", lambda v: isinstance(v, dict))),
}


def check_hyperparameters(values: dict[str, Any], n_envs: int | None) -> None:
    """
    Check the hyperparameters, each alone and against the size of the rollout.

    :param values: hyperparameters by name
    :param n_envs: number of environments; None: not known yet
    :raises ValueError: naming parameter, value and allowed range
    :raises AssertionError: if the advantage of a single transition would be standardised, as in SB3
    """
    for name, rule in _RULES.items():
        check(name, values[name], rule)
    for name in SCHEDULED:
        scheduled(name, make_schedule(name, values[name]), 1.0)

    if n_envs is None:
        return
    n_steps, factor = values["n_steps"], values["sub_sampling_factor"]
    size = n_steps * n_envs
    if factor > size:
        raise ValueError(
            f"`sub_sampling_factor` must be at most `n_steps * n_envs` = {n_steps} * {n_envs} = {size}, not {factor}"
        )
    if size == 1 and values["normalize_advantage"]:
        raise AssertionError(
            "`n_steps * n_envs` must be greater than 1 to normalize the advantage. "
            f"Currently n_steps={n_steps} and n_envs={n_envs}"
        )


_LIBRARIES = ("sb3_trpo", "stable_baselines3")


def warn_of_uneven_minibatches(n_steps: int, n_envs: int, batch_size: int) -> None:
    """
    Warn the caller outside of this package and SB3 if the critic's mini-batches do not divide the rollout evenly.

    :param n_steps: steps of a rollout
    :param n_envs: number of environments
    :param batch_size: transitions in a mini-batch
    """
    size = n_steps * n_envs
    if size % batch_size == 0:
        return
    if batch_size > size:
        relation, consequence = "exceeds", f"each pass of the critic has one mini-batch of {size} transitions"
    else:
        relation = "does not divide"
        consequence = f"the critic's last mini-batch of each pass has {size % batch_size} transitions"
    rollout = f"the rollout of `n_steps * n_envs` = {n_steps} * {n_envs} = {size}"
    message = f"`batch_size` = {batch_size} {relation} {rollout}: {consequence}."
    warn_user(message)


def warn_user(message: str) -> None:
    """
    Warn the caller outside of this package and SB3.

    :param message: the warning
    """
    warnings.warn(message, UserWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """Count the frames from the caller up to the first one outside of this package and SB3, as ``stacklevel`` does."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    return level


def hyperparameter_names() -> list[str]:
    """
    List the hyperparameters that :func:`check_hyperparameters` reads.

    :return: their names
    """
    return [*_RULES, *SCHEDULED]

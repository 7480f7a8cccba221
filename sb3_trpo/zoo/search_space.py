"""The search space of ``sb3-trpo tune``."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_onpolicy_params


def sample_hyperparameters(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Draw hyperparameters for ``sb3-trpo tune``, in the form that RL Zoo expects.

    Unlike the Zoo's function for TRPO, this one draws ``cg_damping``, the initial standard deviation of continuous actions,
    and the entropy bonus of discrete ones, but not ``cg_max_steps``.

    :param trial: draws the values, and stores derived values as its attributes
    :param n_actions: dimensions of a ``Box`` action space; 0 for any other
    :param n_envs: number of environments
    :param additional_args: unused
    :return: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`
    """
    drawn: dict[str, Any] = {
        "n_steps_pow": trial.suggest_int("n_steps_pow", 8, 12),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 9),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
        "one_minus_gae_lambda": trial.suggest_float("one_minus_gae_lambda", 0.01, 0.2, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 5e-3, log=True),
        "n_critic_updates": trial.suggest_int("n_critic_updates", 5, 30),
        "target_kl": trial.suggest_float("target_kl", 0.005, 0.1, log=True),
        "cg_damping": trial.suggest_float("cg_damping", 0.01, 100.0, log=True),
        "net_arch": trial.suggest_categorical("net_arch", ["small", "medium"]),
        "activation_fn": trial.suggest_categorical("activation_fn", ["tanh", "relu"]),
    }
    if n_actions > 0:
        drawn["log_std_init"] = trial.suggest_float("log_std_init", -2.0, 0.5)
    else:
        drawn["ent_coef"] = trial.suggest_float("ent_coef", 1e-5, 0.03, log=True)
    return _stored(trial, convert_hyperparameters(drawn))


def sample_recurrent(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw hyperparameters for a policy with memory: those of :func:`sample_hyperparameters`, and its recurrent layers.

    :param trial: draws the values, and stores derived values as its attributes
    :param n_actions: dimensions of a ``Box`` action space; 0 for any other
    :param n_envs: number of environments
    :param additional_args: unused
    :return: arguments of :class:`~sb3_trpo.algorithms.recurrent.RecurrentTRPO`
    """
    sample_hyperparameters(trial, n_actions, n_envs, additional_args)
    trial.suggest_categorical("lstm_hidden_size", [16, 32, 64, 128, 256])
    trial.suggest_categorical("enable_critic_lstm", [False, True])
    trial.suggest_categorical("rnn_type", ["lstm", "gru"])
    return _stored(trial, convert_recurrent(trial.params))


def _stored(trial: optuna.Trial, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Store the derived values as attributes of the trial."""
    for name in ("gamma", "gae_lambda", "n_steps", "batch_size"):
        trial.set_user_attr(name, hyperparameters[name])
    return hyperparameters


def sample_kl_penalty(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw hyperparameters of TRPO, the first coefficient of the KL, whether it adapts, and the number of ascent steps.

    :param trial: see :func:`sample_hyperparameters`
    :param n_actions: see there
    :param n_envs: see there
    :param additional_args: see there
    :return: arguments of :class:`~sb3_trpo.algorithms.kl_penalty.KLPenaltyTRPO`
    """
    return sample_hyperparameters(trial, n_actions, n_envs, additional_args) | {
        "kl_coef": trial.suggest_float("kl_coef", 0.1, 30.0, log=True),
        "adaptive_kl_coef": trial.suggest_categorical("adaptive_kl_coef", [True, False]),
        "n_policy_updates": trial.suggest_int("n_policy_updates", 1, 10),
    }


def sample_dual(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw hyperparameters of TRPO, the learning rate of the multiplier, and the number of ascent steps.

    :param trial: see :func:`sample_hyperparameters`
    :param n_actions: see there
    :param n_envs: see there
    :param additional_args: see there
    :return: arguments of :class:`~sb3_trpo.algorithms.dual.DualTRPO`
    """
    return sample_hyperparameters(trial, n_actions, n_envs, additional_args) | {
        "dual_learning_rate": trial.suggest_float("dual_learning_rate", 1.0, 100.0, log=True),
        "n_policy_updates": trial.suggest_int("n_policy_updates", 1, 10),
    }


def convert_recurrent(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the values that a trial drew for a policy with memory to arguments.

    :param sampled_params: the values of :func:`sample_recurrent` by name
    :return: arguments of :class:`~sb3_trpo.algorithms.recurrent.RecurrentTRPO`
    """
    names = ("lstm_hidden_size", "enable_critic_lstm", "rnn_type")
    of_memory = {name: sampled_params[name] for name in names}
    others = {name: value for name, value in sampled_params.items() if name not in names}
    hyperparameters = convert_hyperparameters(others)
    hyperparameters["policy_kwargs"].update(of_memory)
    return hyperparameters


def convert_hyperparameters(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the values that a trial drew to arguments; also for a trial that is read back from its study.

    :param sampled_params: the values of :func:`sample_hyperparameters` by name
    :return: arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO`
    """
    hyperparameters: dict[str, Any] = convert_onpolicy_params(sampled_params)
    if "log_std_init" in hyperparameters:
        hyperparameters["policy_kwargs"]["log_std_init"] = hyperparameters.pop("log_std_init")
    return hyperparameters

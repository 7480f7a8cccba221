"""
Registers this package with RL Zoo: after an import, ``trpo`` there means this package's TRPO, ``vine_trpo`` its vine sampling,
``npg``, ``kl_penalty_trpo`` and ``dual_trpo`` its other step rules, ``maskable_trpo`` TRPO with action masks, ``trpo_lstm``
TRPO with memory, and ``maskable_trpo_lstm`` TRPO with both.

``python -m rl_zoo3.train --algo trpo --gym-packages sb3_trpo.zoo …`` needs nothing else, and reads this package's
hyperparameters unless ``--conf-file`` names others; the ``sb3-trpo`` command (``sb3_trpo.command_line``) imports it before
every script of the Zoo.
"""

from pathlib import Path

from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_trpo.algorithms.names import ALGORITHMS as ALGORITHMS
from sb3_trpo.checks import described
from sb3_trpo.zoo.default_file import use_own_hyperparameters
from sb3_trpo.zoo.search_space import (
    convert_hyperparameters,
    convert_recurrent,
    sample_dual,
    sample_hyperparameters,
    sample_kl_penalty,
    sample_recurrent,
)
from sb3_trpo.zoo.tuned import Tuned, read_entry

_FILES = {"vine_trpo": "trpo"}
"""Algorithms that use the file of another."""


def hyperparameters_file(algorithm: str = "trpo") -> Path:
    """
    Find the hyperparameters of this package, in RL Zoo's format.

    :param algorithm: a key of ``ALGORITHMS``
    :return: path of the file
    :raises ValueError: if it is no such key
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`algorithm` must be one of {', '.join(ALGORITHMS)}, not {described(algorithm)}")
    package, name = Path(__file__).resolve().parents[1], f"{_FILES.get(algorithm, algorithm)}.yml"
    installed = package / "zoo_hyperparams" / name
    return installed if installed.exists() else package.parent / "zoo_hyperparams" / name


def tuned(env_id: str, algorithm: str = "trpo", *, allow_default: bool = False) -> Tuned:
    """
    Read the hyperparameters of this package for an environment: those of ``sb3-trpo train``, as arguments for Python.

    :param env_id: environment id, such as ``"Hopper-v5"``
    :param algorithm: a key of ``ALGORITHMS``
    :param allow_default: whether an environment without an entry gets the defaults of the class, as in ``sb3-trpo train``
    :return: the budget, and the arguments of the environments, of their wrappers and of the model
    :raises ValueError: if the algorithm or the environment has no entry, naming those that have
    """
    path = hyperparameters_file(algorithm)
    return read_entry(path.read_text(encoding="utf-8"), env_id, ALGORITHMS[algorithm], allow_default)


ALGOS.update(ALGORITHMS)
use_own_hyperparameters(ALGORITHMS, hyperparameters_file)
HYPERPARAMS_SAMPLER.update(
    trpo=sample_hyperparameters,
    vine_trpo=sample_hyperparameters,
    npg=sample_hyperparameters,
    kl_penalty_trpo=sample_kl_penalty,
    dual_trpo=sample_dual,
    maskable_trpo=sample_hyperparameters,
    trpo_lstm=sample_recurrent,
    maskable_trpo_lstm=sample_recurrent,
)
HYPERPARAMS_CONVERTER.update(dict.fromkeys(ALGORITHMS, convert_hyperparameters))
HYPERPARAMS_CONVERTER.update(trpo_lstm=convert_recurrent, maskable_trpo_lstm=convert_recurrent)

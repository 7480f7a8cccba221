"""
Registers this package with RL Zoo: after an import, ``trpo`` there means this package's TRPO, ``vine_trpo`` its vine sampling,
and ``trpo_lstm`` TRPO with memory.

``python -m rl_zoo3.train --algo trpo --gym-packages sb3_trpo.zoo …`` needs nothing else; the ``sb3-trpo`` command
(:mod:`sb3_trpo.command_line`) imports it before every script of the Zoo.
"""

from pathlib import Path

from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_trpo.algorithms.recurrent import RecurrentTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.zoo.search_space import (
    convert_hyperparameters,
    convert_recurrent,
    sample_hyperparameters,
    sample_recurrent,
)


def hyperparameters_file(algorithm: str = "trpo") -> Path:
    """
    Find the hyperparameters of this package, in RL Zoo's format.

    :param algorithm: name of the algorithm in RL Zoo
    :return: path of the file: that of TRPO, unless the algorithm has its own
    """
    package = Path(__file__).resolve().parents[1]
    names = (f"{algorithm}.yml", "trpo.yml")
    places = [root / "zoo_hyperparams" / name for name in names for root in (package, package.parent)]
    return next((place for place in places if place.exists()), places[-1])


ALGOS.update(trpo=TRPO, vine_trpo=VineTRPO, trpo_lstm=RecurrentTRPO)
for _algorithm in ("trpo", "vine_trpo"):
    HYPERPARAMS_SAMPLER[_algorithm] = sample_hyperparameters
    HYPERPARAMS_CONVERTER[_algorithm] = convert_hyperparameters
HYPERPARAMS_SAMPLER["trpo_lstm"] = sample_recurrent
HYPERPARAMS_CONVERTER["trpo_lstm"] = convert_recurrent

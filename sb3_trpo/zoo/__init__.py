"""
Registers this package with RL Zoo: after an import, ``trpo`` there means this package's TRPO, and ``vine_trpo`` its vine
sampling.

``python -m rl_zoo3.train --algo trpo --gym-packages sb3_trpo.zoo …`` needs nothing else; the ``sb3-trpo`` command
(:mod:`sb3_trpo.command_line`) imports it before every script of the Zoo.
"""

from pathlib import Path

from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.zoo.search_space import convert_hyperparameters, sample_hyperparameters


def hyperparameters_file() -> Path:
    """
    Find the hyperparameters of this package, in RL Zoo's format.

    :return: path of the file
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "zoo_hyperparams" / "trpo.yml"
    return installed if installed.exists() else package.parent / "zoo_hyperparams" / "trpo.yml"


ALGOS.update(trpo=TRPO, vine_trpo=VineTRPO)
for _algorithm in ("trpo", "vine_trpo"):
    HYPERPARAMS_SAMPLER[_algorithm] = sample_hyperparameters
    HYPERPARAMS_CONVERTER[_algorithm] = convert_hyperparameters

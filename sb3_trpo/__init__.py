"""Trust Region Policy Optimization for Stable-Baselines3."""

from importlib.metadata import version

from sb3_trpo.actor.plain_policy import register_extractor
from sb3_trpo.algorithms.recurrent import RecurrentTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.arguments.defaults import SB3_CONTRIB_DEFAULTS
from sb3_trpo.distributions.table import register_family
from sb3_trpo.policies import (
    CnnLstmPolicy,
    CnnPolicy,
    MlpLstmPolicy,
    MlpPolicy,
    MultiInputLstmPolicy,
    MultiInputPolicy,
    PaperCnnPolicy,
)
from sb3_trpo.snapshots.pickled_state import deepcopy_state
from sb3_trpo.snapshots.simulator import register_simulator

__version__ = version("sb3-trpo")

__all__ = [
    "SB3_CONTRIB_DEFAULTS",
    "TRPO",
    "CnnLstmPolicy",
    "CnnPolicy",
    "MlpLstmPolicy",
    "MlpPolicy",
    "MultiInputLstmPolicy",
    "MultiInputPolicy",
    "PaperCnnPolicy",
    "RecurrentTRPO",
    "VineTRPO",
    "__version__",
    "deepcopy_state",
    "register_extractor",
    "register_family",
    "register_simulator",
]

"""Trust Region Policy Optimization for Stable-Baselines3."""

from importlib.metadata import version

from sb3_trpo.actor.plain_policy import register_extractor
from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.distributions.table import register_family
from sb3_trpo.envs.masked_vec_env import MaskedVecEnv
from sb3_trpo.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.snapshots.pickled_state import deepcopy_state
from sb3_trpo.snapshots.simulator import register_simulator

__version__ = version("sb3-trpo")

__all__ = [
    "TRPO",
    "CnnPolicy",
    "MaskableTRPO",
    "MaskedVecEnv",
    "MlpPolicy",
    "MultiInputPolicy",
    "PaperCnnPolicy",
    "VineTRPO",
    "__version__",
    "deepcopy_state",
    "register_extractor",
    "register_family",
    "register_simulator",
]

"""Trust Region Policy Optimization for Stable-Baselines3."""

from importlib.metadata import version

from sb3_trpo.actor.plain_policy import register_extractor
from sb3_trpo.algorithms.dual import DualTRPO
from sb3_trpo.algorithms.evaluation import evaluate_policy
from sb3_trpo.algorithms.kl_penalty import KLPenaltyTRPO
from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.algorithms.maskable_recurrent import MaskableRecurrentTRPO
from sb3_trpo.algorithms.natural_policy_gradient import NaturalPolicyGradient
from sb3_trpo.algorithms.recurrent import RecurrentTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.arguments.defaults import SB3_CONTRIB_DEFAULTS
from sb3_trpo.distributions.table import register_family
from sb3_trpo.envs.gymnasium_vector import GymnasiumVecEnv
from sb3_trpo.envs.masked_vec_env import MaskedVecEnv
from sb3_trpo.policies import (
    BetaCnnPolicy,
    BetaMlpPolicy,
    BetaMultiInputPolicy,
    CnnLstmPolicy,
    CnnPolicy,
    MlpLstmPolicy,
    MlpPolicy,
    MultiInputLstmPolicy,
    MultiInputPolicy,
    PaperCnnPolicy,
)
from sb3_trpo.reading.policy_files import load_policy, load_vec_normalize
from sb3_trpo.saving.resume_callback import ResumeCallback
from sb3_trpo.snapshots.environments import ResumableEnv
from sb3_trpo.snapshots.layer_states import register_simulator
from sb3_trpo.snapshots.pickled_state import deepcopy_state

__version__ = version("sb3-trpo")

__all__ = [
    "SB3_CONTRIB_DEFAULTS",
    "TRPO",
    "BetaCnnPolicy",
    "BetaMlpPolicy",
    "BetaMultiInputPolicy",
    "CnnLstmPolicy",
    "CnnPolicy",
    "DualTRPO",
    "GymnasiumVecEnv",
    "KLPenaltyTRPO",
    "MaskableRecurrentTRPO",
    "MaskableTRPO",
    "MaskedVecEnv",
    "MlpLstmPolicy",
    "MlpPolicy",
    "MultiInputLstmPolicy",
    "MultiInputPolicy",
    "NaturalPolicyGradient",
    "PaperCnnPolicy",
    "RecurrentTRPO",
    "ResumableEnv",
    "ResumeCallback",
    "VineTRPO",
    "__version__",
    "deepcopy_state",
    "evaluate_policy",
    "load_policy",
    "load_vec_normalize",
    "register_extractor",
    "register_family",
    "register_simulator",
]

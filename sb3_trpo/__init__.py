"""Trust Region Policy Optimization for Stable-Baselines3."""

from importlib.metadata import version

from sb3_trpo.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.trpo import TRPO
from sb3_trpo.vine import VineTRPO

__version__ = version("sb3-trpo")

__all__ = ["TRPO", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "PaperCnnPolicy", "VineTRPO", "__version__"]

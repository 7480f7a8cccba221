"""The short name of EnvPool's environments as ``VecEnv``."""

from sb3_trpo.envs.atari_envpool import AtariEnvPool
from sb3_trpo.envs.envpool import EnvPoolVecEnv

__all__ = ["AtariEnvPool", "EnvPoolVecEnv"]

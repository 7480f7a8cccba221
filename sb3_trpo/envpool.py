"""The short name of :mod:`sb3_trpo.envs.envpool`."""

from sb3_trpo.envs.envpool import AtariEnvPool, EnvPoolVecEnv

__all__ = ["AtariEnvPool", "EnvPoolVecEnv"]

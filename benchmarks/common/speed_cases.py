"""Define the cases in which ``benchmarks.speed`` compares training with that of a peer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.common.arms import ALGORITHMS, PEER
from benchmarks.common.training_speed import Models
from sb3_trpo import SB3_CONTRIB_DEFAULTS, TRPO

SHARED: dict[str, Any] = {
    "n_steps": 2048,
    "batch_size": 128,
    "n_critic_updates": 10,
    "cg_max_steps": 15,
    "seed": 0,
}
"""Settings of both TRPOs."""
OURS_ONLY: dict[str, Any] = {**SB3_CONTRIB_DEFAULTS, **SHARED}
"""The same, and sb3-contrib's values of the settings that have other defaults here."""
PPO_SETTINGS: dict[str, Any] = {"n_steps": 2048, "seed": 0}


@dataclass(frozen=True)
class Case:
    """
    One comparison.

    :param label: name in the table
    :param floor: ratio that must be reached, if there is one
    :param aim: ratio to aim at
    :param env: an environment's id, or a function that makes environments
    :param peer: a name of :data:`~benchmarks.common.arms.ALGORITHMS`
    :param settings: further hyperparameters of both
    """

    label: str
    floor: float | None
    aim: float | None
    env: str | Callable[[], Any]
    peer: str = PEER
    settings: dict[str, Any] = field(default_factory=dict)

    def goals(self) -> tuple[str, str]:
        """
        Write floor and aim as cells of the table.

        :return: both
        """
        return f"{self.floor}x" if self.floor else "", f"{self.aim}x" if self.aim else ""

    def models(self, device: str) -> Models:
        """
        Make both sides.

        :param device: of both models
        :return: ours and the peer
        """
        settings = {**SHARED, **self.settings}
        peer: Any = ALGORITHMS[self.peer].cls
        peer_settings = settings if self.peer == PEER else PPO_SETTINGS
        ours = TRPO("MlpPolicy", self._make_env(), device=device, **{**OURS_ONLY, **settings})
        return ours, peer("MlpPolicy", self._make_env(), device=device, **peer_settings)

    def _make_env(self) -> Any:
        return self.env if isinstance(self.env, str) else self.env()


def normalized_env(env_id: str) -> VecNormalize:
    """
    Make one environment as the Zoo does.

    :param env_id: environment id
    :return: the environment, its observations and rewards normalised
    """
    return VecNormalize(make_vec_env(env_id, seed=0))


EIGHT = partial(make_vec_env, "HalfCheetah-v5", n_envs=8, seed=0)
WHOLE_RUNS = [
    Case("HalfCheetah-v5, one env, against sb3-contrib TRPO", 4.0, 6.0, "HalfCheetah-v5"),
    Case("HalfCheetah-v5, one env, against SB3 PPO", 5.5, 8.0, "HalfCheetah-v5", peer="sb3_ppo"),
    Case("CartPole-v1, one env, against sb3-contrib TRPO", 3.5, 6.0, "CartPole-v1"),
    Case("Hopper-v5, likewise", 2.6, 4.0, "Hopper-v5"),
    Case("Walker2d-v5, likewise", 2.4, 3.5, "Walker2d-v5"),
    Case("Ant-v5, likewise", 1.7, 2.2, "Ant-v5"),
    Case("HalfCheetah-v5, 8 envs of `make_vec_env`, likewise", 2.5, 4.0, EIGHT),
    Case("the same 8 envs with `n_steps=256`, likewise", None, None, EIGHT, settings={"n_steps": 256}),
    Case(
        "HalfCheetah-v5 as the Zoo runs it (`make_vec_env`, `VecNormalize`), likewise",
        2.5,
        3.5,
        partial(normalized_env, "HalfCheetah-v5"),
    ),
]
UPDATES = [
    Case("update alone, 2,048 samples, against sb3-contrib TRPO", 2.5, 5.0, "HalfCheetah-v5"),
    Case(
        "update alone, 20,480 samples, 256-256 nets, likewise",
        2.5,
        5.0,
        "HalfCheetah-v5",
        settings={"n_steps": 20480, "policy_kwargs": {"net_arch": [256, 256]}},
    ),
]

"""TRPO learns identity environments and CartPole, with returns above a floor."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import (
    IdentityEnv,
    IdentityEnvBox,
    IdentityEnvMultiBinary,
    IdentityEnvMultiDiscrete,
)
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_trpo import TRPO


@pytest.mark.parametrize(
    ("env", "floor"),
    [
        (IdentityEnv(4), 90.0),
        (IdentityEnvMultiDiscrete(4), 90.0),
        (IdentityEnvMultiBinary(4), 90.0),
        (IdentityEnvBox(eps=0.5), 90.0),
    ],
    ids=["discrete", "multi_discrete", "multi_binary", "box"],
)
def test_identity(env: Any, floor: float) -> None:
    model = TRPO("MlpPolicy", env, n_steps=512, seed=0, gamma=0.4, target_kl=0.05).learn(10_000)
    mean, _ = evaluate_policy(model, make_vec_env(lambda: env), n_eval_episodes=10, deterministic=True, warn=False)
    assert float(np.mean(mean)) >= floor


def test_cart_pole() -> None:
    model = TRPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=0), n_steps=256, seed=0)
    model.learn(40_000)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", seed=1), n_eval_episodes=10)
    assert float(np.mean(mean)) >= 450.0

"""Hooks that cost the fast path are named, once; a policy that is slow by its class is not blamed on them."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo import TRPO, RecurrentTRPO
from tests.toy_envs import RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0}


def watch_gradients(module: str, gradient: th.Tensor) -> None:
    """A hook like those of experiment trackers."""


def watch_outputs(*args: Any) -> None:
    """Likewise, of a module."""


class Tracker(BaseCallback):
    """Sets its hooks when it is given the model, as W&B's callback does."""

    def __init__(self, gradients: bool) -> None:
        super().__init__()
        self._gradients = gradients

    def _init_callback(self) -> None:
        layer = self.model.policy.action_net
        assert isinstance(layer, nn.Linear)
        if self._gradients:
            layer.weight.register_hook(partial(watch_gradients, "action_net"))  # type: ignore[no-untyped-call]
        else:
            layer.register_forward_hook(watch_outputs)

    def _on_step(self) -> bool:
        return True


class OwnPolicy(ActorCriticPolicy):
    """A policy of the user's."""


@pytest.mark.parametrize("algorithm", [TRPO, RecurrentTRPO])
@pytest.mark.parametrize("gradients", [True, False])
def test_hooks_are_named_once(algorithm: Any, gradients: bool) -> None:
    model = algorithm("MlpPolicy" if algorithm is TRPO else "MlpLstmPolicy", RandomEnv(), **SMALL)
    with pytest.warns(UserWarning, match="Hooks slow this run down") as caught:
        model.learn(48, Tracker(gradients))
    assert len(caught) == 1
    name = "watch_gradients` of tests.rollout.test_hooks at `action_net.weight`" if gradients else "watch_outputs` of tests"
    assert name in str(caught[0].message)
    assert caught[0].filename == __file__


def test_a_policy_that_is_slow_by_its_class_is_not_blamed_on_hooks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TRPO(OwnPolicy, RandomEnv(), **SMALL).learn(32, Tracker(gradients=True))
        TRPO("MlpPolicy", RandomEnv(), **SMALL).learn(32)

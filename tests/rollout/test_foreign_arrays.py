"""Wrappers of SB3 that get arrays of another library are named with the type; other errors stay as they are."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_trpo import TRPO
from tests.rollout.test_arrays import KINDS, SMALL, Foreign, Returning
from tests.toy_envs import IMAGE

FOREIGN = f"{Foreign.__module__}.Foreign"


@pytest.mark.parametrize(
    ("wrap", "kind", "message"),
    [
        (VecNormalize, "jax", f"observations of Returning are a {FOREIGN}, and VecNormalize knows arrays of NumPy only"),
        (VecNormalize, "list", "observations of Returning are a list, and VecNormalize"),
        (VecMonitor, "torch", "observations of Returning are a torch.Tensor, and VecMonitor"),
        (lambda env: VecFrameStack(env, 2), "list", "observations of Returning are a list, and VecFrameStack"),
        (lambda env: VecMonitor(VecNormalize(env)), "torch", "observations of Returning are a torch.Tensor, and VecNormalize"),
    ],
)
def test_the_wrapper_and_the_type_are_named(wrap: Any, kind: str, message: str) -> None:
    model = TRPO("MlpPolicy", wrap(Returning(KINDS[kind])), **SMALL)
    with pytest.raises(TypeError, match=f"the {message}.*convert them in the `reset` and `step_wait` of Returning"):
        model.learn(64)


def test_a_wrapper_that_trpo_adds_is_named_too() -> None:
    model = TRPO("CnnPolicy", Returning(th.as_tensor, spaces.Box(0, 255, (36, 36, 3), np.uint8)), **SMALL)
    with pytest.raises(TypeError, match=r"the observations of Returning are a torch\.Tensor, and VecTransposeImage"):
        model.learn(64)


def test_rewards_alone_and_parts_of_dicts_are_named() -> None:
    class Rewards(Returning):
        def step_wait(self) -> Any:
            observations, rewards, dones, infos = self.venv.step_wait()
            return observations, th.as_tensor(rewards), dones, infos

    with pytest.raises(TypeError, match=r"the rewards of Rewards are a torch\.Tensor, and VecMonitor"):
        TRPO("MlpPolicy", VecMonitor(Rewards(np.array)), **SMALL).learn(64)
    model = TRPO("MultiInputPolicy", Returning(KINDS["list"], spaces.Dict({"image": IMAGE})), **SMALL)
    with pytest.raises(TypeError, match="the observations of Returning are a list, and VecTransposeImage"):
        model.learn(64)


class Failing(Returning):
    """Arrays of another library, and an error of its own."""

    def step_wait(self) -> Any:
        raise ValueError("its own error")


@pytest.mark.parametrize("wrap", [lambda env: env, VecMonitor])
def test_errors_of_the_environment_are_as_they_were(wrap: Any) -> None:
    env: VecEnv = wrap(Failing(th.as_tensor))
    with pytest.raises(ValueError, match=r"^its own error$"):
        TRPO("MlpPolicy", env, **SMALL).learn(64)


def test_an_error_of_a_wrapper_with_arrays_of_numpy_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    env = VecNormalize(Returning(np.array))
    monkeypatch.setattr(env, "normalize_reward", lambda rewards: rewards.nothing)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        TRPO("MlpPolicy", env, **SMALL).learn(64)

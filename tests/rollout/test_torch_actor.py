"""NaN weights of a policy that acts through torch are reported with environment and step."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.batch.states import States
from sb3_trpo.rollout.torch_actor import torch_act
from tests.helpers import MaskedPolicy, StudentTPolicy, why_not_fast
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "seed": 0}
TORCH: dict[str, dict[str, Any]] = {
    "gsde": {"policy": "MlpPolicy", "use_sde": True},
    "gelu": {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": nn.GELU}},
    "dict": {"policy": "MultiInputPolicy"},
    "no closed form": {"policy": StudentTPolicy},
}


def spoiled(kind: str, actions: str) -> TRPO:
    space = spaces.Dict({"a": OBSERVATIONS["vector"]}) if kind == "dict" else OBSERVATIONS["vector"]
    env = DummyVecEnv([lambda: RandomEnv(space, ACTIONS[actions])] * 2)
    model = TRPO(env=env, **TORCH[kind], **SMALL)
    assert why_not_fast(model) is not None
    with th.no_grad():
        model.policy.action_net.bias.fill_(th.nan)  # type: ignore[operator]
    return model


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("actions", ["box", "discrete", "multi_discrete", "multi_binary"])
@pytest.mark.parametrize("kind", TORCH)
def test_a_distribution_that_is_not_finite_is_refused_by_name(kind: str, actions: str, validate: bool) -> None:
    if actions != "box" and kind in ("gsde", "no closed form"):
        return  # these are for Box alone
    model = spoiled(kind, actions)
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(validate)  # False under python -O
    try:
        with pytest.raises(ValueError, match=r"The action.* of environment 0 at step 0 of the rollout is not finite"):
            model.learn(64)
        assert th.distributions.Distribution._validate_args is validate
    finally:
        th.distributions.Distribution.set_default_validate_args(before)


def test_masks_are_not_blamed_for_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TRPO(MaskedPolicy, RandomEnv(action_space=ACTIONS["discrete"]), **SMALL)

    def fail(*_: Any) -> Any:
        raise ValueError("the user's own")

    monkeypatch.setattr(model.interface, "act", fail)
    with pytest.raises(ValueError, match="the user's own"):
        torch_act(model.interface, States(th.zeros(1, 3)), 0)

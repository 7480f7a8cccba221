"""Policies with Beta distributed actions: their spaces, training, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO, BetaMlpPolicy, RecurrentTRPO, VineTRPO
from tests.helpers import perturb, why_not_fast
from tests.toy_envs import OBSERVATIONS, VECTOR, RandomEnv

POLICIES = {"vector": "BetaMlpPolicy", "image": "BetaCnnPolicy", "dict": "BetaMultiInputPolicy"}
RANGE = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))


def make(observations: str = "vector", **kwargs: Any) -> TRPO:
    env = RandomEnv(OBSERVATIONS[observations], RANGE)
    return TRPO(POLICIES[observations], env, n_steps=64, batch_size=32, seed=0, device="cpu", **kwargs)


@pytest.mark.parametrize("observations", POLICIES)
def test_an_update_keeps_the_bound(observations: str) -> None:
    model = make(observations, target_kl=0.02)
    while model.num_timesteps < 10_000 and (model.last_step is None or model.last_step.kl is None or not model.last_step.kl):
        model.learn(64, reset_num_timesteps=False)
    assert model.last_step is not None
    assert 0.002 < model.last_step.kl <= 0.02


def test_collection_and_update_need_no_autograd() -> None:
    assert why_not_fast(make()) is None


def test_actions_are_scaled_to_the_bounds() -> None:
    model = make()
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").copy_(th.tensor([20.0, -20.0, -20.0, 20.0]))  # near either bound
        model.policy.get_parameter("action_net.weight").zero_()
    action, _ = model.predict(VECTOR.sample(), deterministic=True)
    np.testing.assert_allclose(action, [1.0, 0.0], atol=1e-4)
    many = np.stack([model.predict(VECTOR.sample())[0] for _ in range(100)])
    assert all(RANGE.contains(each) for each in many)


def test_saved_models_act_alike(tmp_path: Path) -> None:
    model = make().learn(64)
    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    observations = np.stack([VECTOR.sample() for _ in range(7)])
    for loaded in (TRPO.load(tmp_path / "model"), BetaMlpPolicy.load(tmp_path / "policy")):
        np.testing.assert_array_equal(
            loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
        )


@pytest.mark.parametrize("format_name", ["onnx", "torch"])
def test_exported_files_act_alike(format_name: str, tmp_path: Path) -> None:
    if format_name == "onnx":
        pytest.importorskip("onnx")
    model = make()
    perturb([model.policy.action_net.weight], 1.0)
    path = tmp_path / {"onnx": "policy.onnx", "torch": "policy.pt2"}[format_name]
    getattr(model, f"export_{format_name}")(path)  # compares the file with `predict`
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Box(np.array([0.0, 1.0], np.float32), np.ones(2, np.float32)),
    ],
)
def test_other_action_spaces_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match="BetaMlpPolicy needs a Box with finite bounds and low < high as `action_space`"):
        TRPO("BetaMlpPolicy", RandomEnv(VECTOR, space))


def test_gsde_and_clipping_are_refused() -> None:
    with pytest.raises(ValueError, match="`use_sde` must be False for BetaMlpPolicy"):
        make(use_sde=True)
    with pytest.raises(ValueError, match="`clipped_gaussian=True` needs SB3's Gaussian"):
        make(clipped_gaussian=True)


def test_vine_sampling_and_an_initial_deviation() -> None:
    model = VineTRPO("BetaMlpPolicy", "Pendulum-v1", n_steps=64, batch_size=32, branch_length=4, seed=0, device="cpu").learn(
        64
    )
    assert model.last_step is not None
    assert not hasattr(model.policy, "log_std")


def test_recurrent_algorithms_have_no_beta() -> None:
    with pytest.raises(ValueError, match="BetaMlpPolicy"):
        RecurrentTRPO("BetaMlpPolicy", RandomEnv(VECTOR, RANGE))

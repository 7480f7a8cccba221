"""
Models that version 0.1.0 saved can be loaded and predict the same bits; ``models/`` has the files and predictions.

The values of convolutions have a tolerance: they round differently on processors with other vector instructions.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_trpo import TRPO, PaperCnnPolicy, VineTRPO
from sb3_trpo.distributions.clipped_gaussian import ClippedGaussianDistribution

MODELS = Path(__file__).parent / "models"
CLASSES = {"vine_cartpole": VineTRPO}


def observations_of(expected: Any) -> Any:
    if "observation" in expected:
        return expected["observation"]
    return {key.removeprefix("observation."): expected[key] for key in expected if key.startswith("observation.")}


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.zip")), ids=lambda path: path.stem)
def test_a_model_predicts_the_same_bits(path: Path) -> None:
    model = CLASSES.get(path.stem, TRPO).load(path, device="cpu")
    expected = np.load(path.with_suffix(".npz"))
    obs = observations_of(expected)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], expected["actions"])
    with th.no_grad():
        values = model.policy.predict_values(model.policy.obs_to_tensor(obs)[0])
    if path.stem == "images_paper":
        np.testing.assert_allclose(values.numpy(), expected["values"], rtol=1e-5, atol=1e-6)
    else:
        assert np.array_equal(values.numpy(), expected["values"])


def test_settings_are_loaded() -> None:
    model = TRPO.load(MODELS / "pendulum_clipped.zip", device="cpu")
    assert isinstance(model.policy.action_dist, ClippedGaussianDistribution)
    assert model.target_kl == "lin_0.02"
    model = TRPO.load(MODELS / "pendulum_clipped.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert model.learn(64, reset_num_timesteps=False).num_timesteps == 192


def test_a_policy_saved_alone_predicts_the_same_bits() -> None:
    policy = PaperCnnPolicy.load(str(MODELS / "images_paper.policy.pt"), device="cpu")
    expected = np.load(MODELS / "images_paper.npz")
    assert np.array_equal(policy.predict(expected["observation"], deterministic=True)[0], expected["actions"])


def test_new_files_name_the_public_module(tmp_path: Path) -> None:
    """A file must not depend on where the package keeps its classes."""
    model = TRPO.load(MODELS / "images_paper.zip", device="cpu")
    assert type(model.policy).__module__ == "sb3_trpo.policies"
    assert type(model.policy.features_extractor).__module__ == "sb3_trpo.policies"

"""The paper's network for images."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO
from sb3_trpo.policies import PaperCNN
from tests.envs import RandomEnv

ATARI = spaces.Box(0, 255, (84, 84, 4), dtype=np.uint8)


def test_it_has_the_papers_size() -> None:
    # figure 3 of the paper, with a head of six actions; the paper says 33,500
    env = RandomEnv(ATARI, spaces.Discrete(6))
    model = TRPO(
        "CnnPolicy", env, n_steps=8, batch_size=8, policy_kwargs={"features_extractor_class": PaperCNN, "net_arch": []}
    )
    actor = [*model.policy.features_extractor.parameters(), *model.policy.action_net.parameters()]
    first, second, hidden = 16 * (4 * 8 * 8 + 1), 16 * (16 * 4 * 4 + 1), 20 * (16 * 9 * 9 + 1)
    assert sum(parameter.numel() for parameter in actor) == first + second + hidden + 6 * 21 == 34_290
    model.learn(8)


def test_features_are_finite_and_not_negative() -> None:
    space = spaces.Box(0, 255, (1, 20, 24), dtype=np.uint8)
    features = PaperCNN(space, features_dim=7)(th.rand(3, 1, 20, 24))
    assert features.shape == (3, 7)
    assert (features >= 0.0).all()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1.0, 1.0, (3,)), "needs images"),
        (spaces.Box(0.0, 1.0, (1, 36, 36)), "needs images"),
        (spaces.Box(0, 255, (1, 19, 84), dtype=np.uint8), "20 x 20 pixels or more, not 19 x 84"),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaperCNN(space)

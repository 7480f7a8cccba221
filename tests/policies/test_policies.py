"""The networks for images, and the default network of each policy."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_trpo import TRPO
from sb3_trpo.policies.aliases import CnnPolicy, PaperCnnPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from tests.helpers import why_not_plain_actor
from tests.toy_envs import RandomEnv

ATARI = spaces.Box(0, 255, (84, 84, 4), dtype=np.uint8)


def test_paper_cnn_has_the_papers_size() -> None:
    # figure 3 of the paper, with a head of six actions; the paper says 33,500
    env = RandomEnv(ATARI, spaces.Discrete(6))
    model = TRPO("PaperCnnPolicy", env, n_steps=8, batch_size=8)
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


def test_small_images_are_refused_in_custom_policies() -> None:
    class OwnPolicy(CnnPolicy):
        pass

    with pytest.raises(ValueError, match="`NormalizedCNN` needs images of 36 x 36 pixels or more, not 35 x 40"):
        TRPO(OwnPolicy, RandomEnv(spaces.Box(0, 255, (35, 40, 1), dtype=np.uint8)), n_steps=8, batch_size=8)


@pytest.mark.parametrize("policy", ["CnnPolicy", "PaperCnnPolicy"])
@pytest.mark.parametrize("space", [spaces.Box(0.0, 1.0, (3, 40, 40)), spaces.Box(0, 255, (3, 40, 40), dtype=np.uint8)])
def test_scaled_images_are_accepted(policy: str, space: spaces.Space[Any]) -> None:
    kwargs = {"normalize_images": False}
    model = TRPO(policy, RandomEnv(space), n_steps=8, batch_size=8, n_critic_updates=1, policy_kwargs=kwargs).learn(8)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert kwargs == {"normalize_images": False}


def test_net_arch_by_position_as_in_sb3() -> None:
    space = spaces.Box(0, 255, (3, 40, 40), dtype=np.uint8)
    assert CnnPolicy(space, spaces.Discrete(3), lambda _: 1e-3, [32]).net_arch == [32]


IMAGES = spaces.Box(0, 255, (36, 40, 1), dtype=np.uint8)


@pytest.mark.parametrize("policy", ["CnnPolicy", CnnPolicy])
@pytest.mark.parametrize("named", [{}, {"features_extractor_class": NormalizedCNN}])
def test_images_are_normalised_unless_the_user_chooses_a_network(policy: Any, named: dict[str, Any]) -> None:
    model = TRPO(policy, RandomEnv(IMAGES), n_steps=8, batch_size=8, policy_kwargs=named)
    assert type(model.policy.pi_features_extractor) is type(model.policy.vf_features_extractor) is NormalizedCNN
    assert model.policy.pi_features_extractor is not model.policy.vf_features_extractor
    assert len(model.policy.mlp_extractor.policy_net) == 0
    chosen = {"features_extractor_class": NatureCNN, "share_features_extractor": True}
    model = TRPO(policy, RandomEnv(IMAGES), n_steps=8, batch_size=8, policy_kwargs=chosen)
    assert model.policy.pi_features_extractor is model.policy.vf_features_extractor
    assert type(model.policy.features_extractor) is NatureCNN
    assert model.policy_kwargs == chosen


@pytest.mark.parametrize("policy", ["PaperCnnPolicy", PaperCnnPolicy])
def test_paper_policy_has_two_paper_networks_and_is_differentiated_by_hand(policy: Any) -> None:
    model = TRPO(policy, RandomEnv(IMAGES), n_steps=8, batch_size=8)
    assert type(model.policy.pi_features_extractor) is type(model.policy.vf_features_extractor) is PaperCNN
    assert model.policy.pi_features_extractor is not model.policy.vf_features_extractor
    assert len(model.policy.mlp_extractor.policy_net) == 0
    assert why_not_plain_actor(model.policy) is None


def test_sb3s_class_keeps_sb3s_defaults() -> None:
    model = TRPO(ActorCriticCnnPolicy, RandomEnv(IMAGES), n_steps=8, batch_size=8)
    assert model.policy.pi_features_extractor is model.policy.vf_features_extractor
    assert type(model.policy.features_extractor) is NatureCNN


POLICIES = [("CnnPolicy", IMAGES), ("PaperCnnPolicy", IMAGES), ("MultiInputPolicy", spaces.Dict({"image": IMAGES}))]


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("policy", "space"), POLICIES)
def test_a_saved_policy_is_the_same_when_loaded(policy: str, space: spaces.Space[Any], share: bool, tmp_path: Path) -> None:
    kwargs = {"share_features_extractor": share}
    model = TRPO(policy, RandomEnv(space), n_steps=8, batch_size=8, policy_kwargs=kwargs).learn(8)
    model.policy.save(str(tmp_path / "policy"))
    loaded = type(model.policy).load(str(tmp_path / "policy"))
    assert loaded.share_features_extractor is share
    before, after = model.policy.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(th.equal(parameter, after[name]) for name, parameter in before.items())


def test_other_networks_keep_the_hidden_layers_that_sb3_gives_them() -> None:
    model = TRPO("CnnPolicy", RandomEnv(IMAGES), n_steps=8, batch_size=8, policy_kwargs={"features_extractor_class": PaperCNN})
    assert len(model.policy.mlp_extractor.policy_net) == 4
    model = TRPO("CnnPolicy", RandomEnv(IMAGES), n_steps=8, batch_size=8, policy_kwargs={"net_arch": [9]})
    assert len(model.policy.mlp_extractor.policy_net) == 2
    assert type(model.policy.features_extractor) is NormalizedCNN


def test_an_extractor_need_not_be_a_class() -> None:
    settings = {"features_extractor_class": partial(NatureCNN, features_dim=16)}
    model = TRPO("CnnPolicy", RandomEnv(IMAGES), n_steps=8, batch_size=8, n_critic_updates=1, policy_kwargs=settings)
    assert model.policy.features_extractor.features_dim == 16
    model.learn(8)


def test_normalised_network_is_sb3s_on_normalised_images() -> None:
    space = spaces.Box(0, 255, (1, 36, 40), dtype=np.uint8)
    network, sb3s, images = (
        NormalizedCNN(space, features_dim=7).eval(),
        NatureCNN(space, features_dim=7),
        th.rand(5, 1, 36, 40),
    )
    network.load_state_dict(sb3s.state_dict(), strict=False)
    th.testing.assert_close(network(images), sb3s(images))
    network.train()
    network(images)
    network.eval()
    std = (images - images.mean(dim=0)).pow(2).mean().sqrt()
    th.testing.assert_close(network(images), sb3s((images - images.mean(dim=0)) / std))


def test_the_papers_network_reads_normalised_images_by_default() -> None:
    space = spaces.Box(0, 255, (1, 36, 40), dtype=np.uint8)
    network, images = PaperCNN(space), th.rand(5, 1, 36, 40)
    raw = PaperCNN(space, n_images=0)
    raw.load_state_dict(network.state_dict())
    for extractor in (network, raw):
        extractor.train()
        extractor(images)
        extractor.eval()
    std = (images - images.mean(dim=0)).pow(2).mean().sqrt()
    th.testing.assert_close(network(images), raw((images - images.mean(dim=0)) / std))
    assert not th.equal(network(images), raw(images))
    th.testing.assert_close(raw(images), raw.linear(raw.cnn(images)))


def test_statistics_survive_saving(tmp_path: Any) -> None:
    kwargs = {"features_extractor_kwargs": {"n_images": 64}}
    model = TRPO("CnnPolicy", RandomEnv(IMAGES), n_steps=64, batch_size=64, seed=0, policy_kwargs=kwargs).learn(64)
    model.save(tmp_path / "model.zip")
    loaded = TRPO.load(tmp_path / "model.zip")
    loaded.policy.get_distribution(th.full((4, 1, 36, 40), 200))  # which changes nothing in evaluation mode
    mine, theirs = (dict(m.policy.pi_features_extractor.named_buffers()) for m in (model, loaded))
    assert theirs["normalization.mean"].any()
    assert all(th.equal(buffer, theirs[name]) for name, buffer in mine.items())

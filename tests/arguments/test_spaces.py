"""Observations that cannot be trained on are refused before anything is built; the error says what they must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy
from sb3_trpo.policies.image_networks import PaperCNN
from tests.toy_envs import OBSERVATIONS, RandomEnv


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("space", "policy_kwargs", "message"),
    [
        (OBSERVATIONS["vector"], {}, "3 dimensions, not Box.*use `MlpPolicy`"),
        (spaces.Box(0.0, 1.0, (3, 84, 84)), {}, r"uint8 in \[0, 255\], not of float32 in \[0, 1\].*normalize_images=False"),
        (spaces.Box(0, 1, (3, 84, 84), dtype=np.uint8), {}, r"not of uint8 in \[0, 1\]"),
        (
            spaces.Box(0.0, 1.0, (84, 84, 3)),
            {"normalize_images": False},
            "with the channels first; .*84 channels of 84 x 3 pixels: enlarge them, move the channels",
        ),
        (image(84, 35, 1), {}, "NormalizedCNN needs images of 36 x 36 pixels or more.* 1 channels of 84 x 35 pixels"),
        (
            image(19, 84, 3),
            {"features_extractor_class": PaperCNN},
            "PaperCNN needs images of 20 x 20 pixels or more.* 3 channels of 19 x 84 pixels",
        ),
    ],
)
def test_bad_images_are_refused(space: spaces.Space[Any], policy_kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRPO("CnnPolicy", RandomEnv(space), n_steps=8, batch_size=8, policy_kwargs=policy_kwargs)


def test_the_papers_policy_reads_smaller_images() -> None:
    TRPO("PaperCnnPolicy", RandomEnv(image(20, 20, 3)), n_steps=4, batch_size=4, n_critic_updates=1).learn(4)
    with pytest.raises(ValueError, match="`PaperCnnPolicy` with PaperCNN needs images of 20 x 20 pixels"):
        TRPO("PaperCnnPolicy", RandomEnv(image(19, 84, 3)), n_steps=4, batch_size=4)


class FewPixels(BaseFeaturesExtractor):
    """Reads images of any size."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, 4)
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

    def forward(self, observations: Any) -> th.Tensor:
        images: th.Tensor = observations["view"] if isinstance(observations, dict) else observations
        features: th.Tensor = self.layers(images)
        return features


@pytest.mark.parametrize("base", [CnnPolicy, ActorCriticCnnPolicy, MultiInputPolicy, MultiInputActorCriticPolicy])
def test_extractors_of_custom_policies_are_not_checked(base: type[ActorCriticPolicy]) -> None:
    class OwnPolicy(base):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, features_extractor_class=FewPixels, ortho_init=False, **kwargs)

    space: spaces.Space[Any] = image(7, 9, 3)
    if issubclass(base, MultiInputActorCriticPolicy):
        space = spaces.Dict({"view": space})
    assert TRPO(OwnPolicy, RandomEnv(space), n_steps=8, batch_size=8, learning_rate=1e-4).policy.features_dim == 4


def test_images_may_have_more_channels_than_pixels_per_side() -> None:
    space = spaces.Box(0.0, 1.0, (64, 40, 40))
    kwargs = {"normalize_images": False}
    model = TRPO("CnnPolicy", RandomEnv(space), n_steps=4, batch_size=4, n_critic_updates=1, policy_kwargs=kwargs)
    assert model.learn(4).num_timesteps == 4


@pytest.mark.filterwarnings("ignore:Treating image space as channels-last")  # SB3's warning
def test_channels_in_the_middle_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"with the channels first or last; the shape \(84, 84, 4\) reads as 84 channels of 84 x 4 pixels"
    ):
        TRPO("CnnPolicy", RandomEnv(image(84, 4, 84)), n_steps=8, batch_size=8)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(4, start=1), "must begin at 0, not as in Discrete"),
        (spaces.MultiDiscrete([2, 3], start=[0, 1]), "must begin at 0"),
        (spaces.MultiDiscrete(np.array([[2, 3], [2, 3]])), "must have one dimension"),
    ],
)
def test_discrete_values_that_sb3_cannot_encode_are_refused(space: spaces.Space[Any], message: str) -> None:
    for env in (RandomEnv(space), RandomEnv(action_space=space), RandomEnv(spaces.Dict({"a": space}))):
        policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
        with pytest.raises(ValueError, match=rf"`(observation|action)_space` {message}"):
            TRPO(policy, env, n_steps=8, batch_size=8)


def test_bad_dicts_are_refused() -> None:
    small = spaces.Dict({"view": image(7, 9, 3), "direction": spaces.Discrete(4)})
    with pytest.raises(ValueError, match=r"NatureCNN for 'view' needs images of 36 x 36 pixels or more.* 7 x 9 pixels"):
        TRPO("MultiInputPolicy", RandomEnv(small), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="needs observations of a Dict space, not Box"):
        TRPO("MultiInputPolicy", RandomEnv(image(36, 36, 3)), n_steps=8, batch_size=8)


@pytest.mark.parametrize(
    ("space", "policy_kwargs"),
    [
        (image(36, 36, 1), {}),
        (image(1, 36, 40), {}),
        (image(20, 20, 3), {"features_extractor_class": PaperCNN}),
        (spaces.Box(0.0, 1.0, (3, 36, 36)), {"normalize_images": False}),
    ],
)
def test_images_of_the_smallest_size_are_trained_on(space: spaces.Space[Any], policy_kwargs: dict[str, Any]) -> None:
    env = RandomEnv(space)
    model = TRPO("CnnPolicy", env, n_steps=8, batch_size=8, n_critic_updates=1, policy_kwargs=policy_kwargs).learn(8)
    assert model.last_step is not None
    assert model.last_step.accepted


def test_a_rollout_beyond_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`n_steps \* n_envs` = 1000000000 \* 1 observations of 1,296 bytes need 1296.0 GB"):
        TRPO("CnnPolicy", RandomEnv(image(36, 36, 1)), n_steps=10**9, batch_size=10**9)


def test_a_model_that_only_predicts_needs_no_memory_for_a_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8).save(tmp_path / "model")
    monkeypatch.setattr("os.sysconf", lambda _: 1)  # one byte
    with pytest.raises(ValueError, match="lower `n_steps`"):
        TRPO.load(tmp_path / "model", env=RandomEnv())
    assert TRPO.load(tmp_path / "model").predict(np.zeros(3, dtype=np.float32))[0].shape == (2,)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": -1, "SC_PAGE_SIZE": 4096}.__getitem__)  # not known
    TRPO.load(tmp_path / "model", env=RandomEnv())


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_real_actions_that_the_buffer_would_round_are_refused(dtype: Any) -> None:
    env = RandomEnv(action_space=spaces.Box(0, 255, (2,), dtype=dtype))
    with pytest.raises(ValueError, match=f"a Box in `action_space` must be of floats, not of {np.dtype(dtype)}"):
        TRPO("MlpPolicy", env)


BOX = OBSERVATIONS["vector"]
UNSUPPORTED: list[tuple[spaces.Space[Any], str]] = [
    (spaces.Text(5), "is a Text, but"),
    (spaces.Sequence(spaces.Discrete(3)), "is a Sequence, but"),
    (spaces.Graph(BOX, None), "is a Graph, but"),
    (spaces.Tuple([BOX, BOX]), "is a Tuple, but"),
    (spaces.Box(-1.0, 1.0, ()), r"at least one dimension, not Box.*use the shape \(1,\)"),
    (spaces.Box(-1.0, 1.0, (0,)), "no dimension of size 0, not Box"),
    (spaces.Box(-1.0, 1.0, (2, 0)), "no dimension of size 0, not Box"),
    (spaces.MultiDiscrete([]), "no dimension of size 0, not MultiDiscrete"),
]


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
@pytest.mark.parametrize(("space", "message"), UNSUPPORTED)
def test_unsupported_observations_are_refused(space: spaces.Space[Any], message: str, policy: str) -> None:
    supported = ".*must be a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict" if "but" in message else ""
    with pytest.raises(ValueError, match=rf"`observation_space` .*{message}{supported}"):
        TRPO(policy, RandomEnv(space), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match=f"'b' in the Dict of `observation_space` .*{message}".removesuffix(", but")):
        TRPO(policy, RandomEnv(spaces.Dict({"a": BOX, "b": space})), n_steps=8, batch_size=8)


def test_nested_and_empty_dicts_are_refused() -> None:
    with pytest.raises(ValueError, match="'b' in the Dict of `observation_space` is a Dict, but must be a Box") as error:
        TRPO("MultiInputPolicy", RandomEnv(spaces.Dict({"a": BOX, "b": spaces.Dict({"c": BOX})})), n_steps=8, batch_size=8)
    assert isinstance(error.value, NotImplementedError)  # as SB3's is
    with pytest.raises(ValueError, match="a Dict without keys"):
        TRPO("MultiInputPolicy", RandomEnv(spaces.Dict()), n_steps=8, batch_size=8)


def test_a_vectorised_environment_is_checked_too() -> None:
    env = DummyVecEnv([lambda: RandomEnv(spaces.Box(-1.0, 1.0, ()))])
    with pytest.raises(ValueError, match="at least one dimension"):
        TRPO("MlpPolicy", env, n_steps=8, batch_size=8)


@pytest.mark.parametrize("space", [spaces.Box(-1.0, 1.0, (0,)), spaces.Box(-1.0, 1.0, (2, 0)), spaces.MultiDiscrete([])])
def test_actions_without_numbers_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"`action_space` must have no dimension of size 0, not (Box|MultiDiscrete)"):
        TRPO("MlpPolicy", RandomEnv(action_space=space), n_steps=8, batch_size=8)

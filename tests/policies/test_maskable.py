"""The maskable policies have the signatures of sb3-contrib's, and keep their arguments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from sb3_trpo import MaskableTRPO
from sb3_trpo.policies import MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy, NormalizedCNN
from sb3_trpo.policies.interface import own_distribution
from sb3_trpo.policies.maskable import is_contrib_maskable, predict_with_masks
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

MASKS = {"discrete": [1, 0, 1], "multi_discrete": [0, 1, 1, 0, 1], "multi_binary": [1, 0, 1, 1, 0, 1]}


def make(actions: str = "discrete", policy_class: type[Any] = MaskableMlpPolicy) -> Any:
    th.manual_seed(0)
    policy = policy_class(OBSERVATIONS["vector"], ACTIONS[actions], lambda _: 1e-3)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5 * th.randn_like(parameter))
    return policy


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete"])
def test_it_computes_what_sb3_contribs_does(actions: str) -> None:
    ours, theirs = make(actions), make(actions, MaskableActorCriticPolicy)
    theirs.load_state_dict(ours.state_dict())
    observations = th.randn(6, 3)
    masks = np.array([MASKS[actions]] * 6)
    both = [policy.get_distribution(observations, action_masks=masks) for policy in (ours, theirs)]
    taken = both[1].sample()
    th.testing.assert_close(both[0].log_prob(taken), both[1].log_prob(taken))
    for mine, other in zip(
        *(p.evaluate_actions(observations, taken, action_masks=masks) for p in (ours, theirs)), strict=True
    ):
        th.testing.assert_close(mine, other)
    for mine, other in zip(*(p(observations, deterministic=True, action_masks=masks) for p in (ours, theirs)), strict=True):
        th.testing.assert_close(mine, other)
    chosen = [p.predict(observations.numpy(), deterministic=True, action_masks=masks)[0] for p in (ours, theirs)]
    np.testing.assert_array_equal(*chosen)


@pytest.mark.parametrize("actions", MASKS)
def test_masks_hold_for_one_call(actions: str) -> None:
    policy, observations = make(actions), th.randn(200, 3)
    before = policy.action_dist
    masks = th.tensor([MASKS[actions]] * 200)
    drawn, values, log_prob = policy(observations, action_masks=masks)
    restricted, free = policy.get_distribution(observations, masks), policy.get_distribution(observations)
    assert log_prob.isfinite().all()
    th.testing.assert_close(log_prob, restricted.log_prob(drawn))
    assert not restricted.log_prob(free.sample()).isfinite().all()
    assert policy.action_dist is before
    assert values.shape == (200, 1)
    single, _ = policy.predict(observations[0].numpy(), action_masks=MASKS[actions])
    assert single.shape == (ACTIONS[actions].shape or ())
    with pytest.raises(ValueError, match="must be one action mask for each of the 200 observations, not 1"):
        policy(observations, action_masks=MASKS[actions])
    assert policy.action_dist is before


def test_predictions_of_policies_that_take_no_masks() -> None:
    policy = make(policy_class=MaskableMlpPolicy.__mro__[2])  # SB3's
    memory = (np.zeros(1),)
    chosen, state = predict_with_masks(policy, [0, 0, 1], np.zeros(3, dtype=np.float32), memory)
    assert chosen.item() == 2
    assert state is memory


def test_a_lent_policy_keeps_its_masks_when_it_is_called_without() -> None:
    policy, observations = make(), th.randn(5, 3)
    with own_distribution(policy, th.tensor([[False, True, False]] * 5)) as lent:
        assert lent(observations)[0].tolist() == [1] * 5
        assert lent.get_distribution(observations).mode().tolist() == [1] * 5


@pytest.mark.parametrize(
    ("policy_class", "observations", "arguments"),
    [
        (MaskableMlpPolicy, "vector", {"share_features_extractor": False, "net_arch": [5]}),
        (MaskableMultiInputPolicy, "dict", {"share_features_extractor": True}),
        (MaskableCnnPolicy, "image", {"share_features_extractor": True}),
    ],
)
def test_saved_policies_keep_their_arguments(
    policy_class: type[Any], observations: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    env = RandomEnv(OBSERVATIONS[observations], ACTIONS["discrete"])
    policy = MaskableTRPO(policy_class, env, n_steps=8, batch_size=8, policy_kwargs=arguments).policy
    policy.save(str(tmp_path / "policy"))
    loaded = policy_class.load(str(tmp_path / "policy"))
    for name, value in arguments.items():
        assert getattr(loaded, name) == value
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    if observations == "image":
        assert type(loaded.features_extractor) is NormalizedCNN


def test_sb3_contribs_policies_are_recognised() -> None:
    class Own(MaskableActorCriticPolicy):
        pass

    assert is_contrib_maskable(MaskableActorCriticPolicy)
    assert is_contrib_maskable(Own)
    assert not any(map(is_contrib_maskable, (MaskableMlpPolicy, "MlpPolicy", None)))

"""Recurrent policies compute what sb3-contrib's compute, and keep their sizes when they are saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticCnnPolicy, RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from sb3_trpo import CnnLstmPolicy, MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.policies.recurrent import own_class, why_not_recurrent
from tests.helpers import BOX, OBSERVATIONS
from tests.recurrent_helpers import KINDS, SMALL
from tests.toy_envs import RandomEnv

LSTMS = [kind for kind in KINDS if "gru" not in kind]


def both(**kwargs: Any) -> tuple[MlpLstmPolicy, Any]:
    """Our policy and sb3-contrib's with the same arguments and seed."""
    policies: list[Any] = []
    for policy_class in (MlpLstmPolicy, RecurrentActorCriticPolicy):
        th.manual_seed(0)
        policies.append(policy_class(OBSERVATIONS, BOX, lambda _: 1e-3, **SMALL, **kwargs))
        policies[-1].set_training_mode(False)
    return policies[0], policies[1]


@pytest.mark.parametrize("kind", LSTMS)
def test_weights_are_those_of_contrib_and_can_be_exchanged(kind: str) -> None:
    ours, theirs = both(**KINDS[kind])
    for (name, value), (their_name, expected) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == their_name
        assert th.equal(value, expected)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("kind", LSTMS)
@pytest.mark.parametrize("length", [1, 6])
def test_every_method_agrees_with_contrib(kind: str, length: int) -> None:
    ours, theirs = both(**KINDS[kind])
    n = 4
    obs, shape = th.randn(n * length, 3), (ours.n_lstm_layers, n, ours.lstm_hidden_size)
    states = RNNStates(*[tuple(th.randn(shape) for _ in range(2)) for _ in range(2)])
    starts = th.bernoulli(th.full((n * length,), 0.3))
    results = [policy(obs, states, starts, deterministic=True) for policy in (ours, theirs)]
    for actual, expected in zip(results[0][:3], results[1][:3], strict=True):
        th.testing.assert_close(actual, expected)
    for actual, expected in zip(results[0][3], results[1][3], strict=True):
        th.testing.assert_close(tuple(actual), tuple(expected))
    actions = results[1][0]
    evaluated = [policy.evaluate_actions(obs, actions, states, starts) for policy in (ours, theirs)]
    for actual, expected in zip(*evaluated, strict=True):
        th.testing.assert_close(actual, expected)
    values = [policy.predict_values(obs, states.pi if ours.shared_lstm else states.vf, starts) for policy in (ours, theirs)]
    th.testing.assert_close(*values)
    means = [policy.get_distribution(obs, states.pi, starts)[0].mode() for policy in (ours, theirs)]
    th.testing.assert_close(*means)


@pytest.mark.parametrize("starts", [None, "bools", "list", "numbers", "one"])
def test_predictions_agree_with_contrib_step_by_step(starts: str | None) -> None:
    ours, theirs = both()
    rng = np.random.default_rng(0)
    state, expected_state = None, None
    for step in range(12):
        obs = rng.normal(size=(3, 3)).astype(np.float32)
        begins: Any = None if starts is None else np.array([step in (0, 4), step == 0, step in (0, 7)])
        given = {"list": lambda b: b.tolist(), "numbers": lambda b: b.astype(int)}.get(starts or "", lambda b: b)(begins)
        if starts == "one":
            given, begins = np.array([step % 5 == 0]), np.full(3, step % 5 == 0)
        action, state = ours.predict(obs, state, given, deterministic=True)
        expected, expected_state = theirs.predict(obs, expected_state, begins, deterministic=True)
        np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)
        assert state is not None
        assert expected_state is not None
        np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=1e-6)


def test_a_single_observation_is_not_vectorized() -> None:
    policy = both()[0]
    action, state = policy.predict(np.zeros(3, dtype=np.float32))
    assert action.shape == (2,)
    assert state is not None
    assert [part.shape for part in state] == [(1, 1, 5)] * 2


def test_the_state_of_a_gru_is_one_array() -> None:
    policy = MlpLstmPolicy(OBSERVATIONS, BOX, lambda _: 1e-3, rnn_type="gru", **SMALL)
    obs = np.ones((2, 3), dtype=np.float32)
    _, state = policy.predict(obs, deterministic=True)
    assert state is not None
    assert [part.shape for part in state] == [(1, 2, 5)]
    again, _ = policy.predict(obs, state, deterministic=True)
    fresh, _ = policy.predict(obs, state, [True, True], deterministic=True)
    first, _ = policy.predict(obs, deterministic=True)
    assert not np.array_equal(again, first)
    np.testing.assert_array_equal(fresh, first)


def test_squashed_actions_are_scaled() -> None:
    space = spaces.Box(-2.0, 2.0, (2,), dtype=np.float32)
    policy = MlpLstmPolicy(OBSERVATIONS, space, lambda _: 1e-3, use_sde=True, squash_output=True, log_std_init=3.0, **SMALL)
    actions, _ = policy.predict(np.ones((50, 3), dtype=np.float32))
    assert 1.0 < np.abs(actions).max() <= 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_policys_own_save_keeps_the_recurrent_layers(kind: str, tmp_path: Path) -> None:
    kwargs = {**SMALL, **KINDS[kind], "lstm_kwargs": {"dropout": 0.1} if "two" in kind else None}
    policy = MlpLstmPolicy(OBSERVATIONS, BOX, lambda _: 1e-3, **kwargs)
    policy.save(str(tmp_path / "policy.zip"))
    loaded = MlpLstmPolicy.load(str(tmp_path / "policy.zip"), device="cpu")
    obs = np.ones((2, 3), dtype=np.float32)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    assert str(loaded) == str(policy)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rnn_type": "rnn"}, "`rnn_type` must be 'lstm' or 'gru', not 'rnn'"),
        ({"rnn_type": ["lstm"]}, "`rnn_type` must be 'lstm' or 'gru'"),
        ({"lstm_hidden_size": 0}, "`lstm_hidden_size` must be an integer >= 1, not 0"),
        ({"n_lstm_layers": 1.5}, "`n_lstm_layers` must be an integer >= 1, not 1.5"),
        ({"shared_lstm": 1}, "`shared_lstm` must be True or False"),
        ({"shared_lstm": True}, "needs `enable_critic_lstm=False`"),
        (
            {"shared_lstm": True, "enable_critic_lstm": False, "share_features_extractor": False},
            "needs `share_features_extractor=True`",
        ),
        ({"lstm_kwargs": {"batch_first": True}}, "`lstm_kwargs` must not have 'batch_first'"),
        ({"lstm_kwargs": [1]}, "`lstm_kwargs` must be None or a dict"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MlpLstmPolicy(OBSERVATIONS, BOX, lambda _: 1e-3, **kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": (np.zeros((1, 3, 5)),)}, r"a tuple of 2 arrays of shape \(1, 2, 5\)"),
        ({"state": (np.zeros((1, 3, 5)), np.zeros((1, 3, 5)))}, r"its shapes are \[\(1, 3, 5\), \(1, 3, 5\)\]"),
        ({"state": 3.0}, "its shapes are 3.0"),
        ({"episode_start": np.zeros(3)}, r"`episode_start` must have one value for each of the 2 observations, not \(3,\)"),
    ],
)
def test_a_wrong_state_is_refused(arguments: dict[str, Any], message: str) -> None:
    policy = both()[0]
    with pytest.raises(ValueError, match=message):
        policy.predict(np.zeros((2, 3), dtype=np.float32), **arguments)


def test_classes_of_contrib_become_ours() -> None:
    assert own_class(RecurrentActorCriticPolicy) is MlpLstmPolicy
    assert own_class(RecurrentActorCriticCnnPolicy) is CnnLstmPolicy
    assert own_class("MlpLstmPolicy") == "MlpLstmPolicy"
    model = RecurrentTRPO(RecurrentActorCriticPolicy, RandomEnv(), n_steps=8, batch_size=8, policy_kwargs=SMALL)
    assert type(model.policy) is MlpLstmPolicy


class Overriding(MlpLstmPolicy):
    def predict_values(self, *args: Any) -> th.Tensor:
        return super().predict_values(*args)


class Extending(MlpLstmPolicy):
    """A subclass that changes nothing that matters."""


@pytest.mark.parametrize(
    ("policy_class", "reason"),
    [
        (MlpLstmPolicy, None),
        (Extending, None),
        (Overriding, "overrides `predict_values`"),
        (3, "is not a subclass of MlpLstmPolicy"),
    ],
)
def test_policies_that_are_called_otherwise_are_named(policy_class: Any, reason: str | None) -> None:
    found = why_not_recurrent(policy_class)
    assert found is None if reason is None else reason in str(found)

"""RecurrentTRPO: the bound holds for the policy that acts, and every other feature works with memory."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_trpo import TRPO, MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.algorithms import trpo as trpo_module
from sb3_trpo.batch.from_buffer import read_batch
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.report import Outcome
from sb3_trpo.update import critic_epochs
from tests.helpers import OwnBuffer, collect, perturb
from tests.recurrent_helpers import KINDS, SETTINGS, SMALL, act_again, make_env, make_model
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv


def kl_of_acting_again(model: RecurrentTRPO) -> float:
    """Collect a rollout amid episodes, update, and act again over its observations, before and after."""
    model.learn(72)
    _, callback = model._setup_learn(72, None, reset_num_timesteps=False)
    assert model.env is not None
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    old, _ = act_again(model)
    model.train()
    new, _ = act_again(model)
    normals = [th.distributions.Normal(part[..., :2].double(), part[..., 2:].double()) for part in (old, new)]
    return th.distributions.kl_divergence(*normals).sum(dim=2).mean().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bptt_length", [None, 1, 3])
def test_the_bound_holds_for_the_policy_that_acts_again(kind: str, bptt_length: int | None) -> None:
    model = make_model(policy_kwargs=KINDS[kind], bptt_length=bptt_length, target_kl=0.05)
    kl = kl_of_acting_again(model)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert model.last_step.kl == pytest.approx(kl, rel=1e-3)
    assert 0.0 < kl <= 0.05 * (1.0 + 1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"sub_sampling_factor": 2},
        {"fisher_sample_fraction": 0.3},
        {"chunk_size": 5},
        {"ent_coef": "lin_0.01", "learning_rate": "lin_0.001"},
        {"normalize_observations": True, "normalize_returns": True},
        {"normalize_observations": True, "policy_kwargs": {"rnn_type": "gru", "enable_critic_lstm": False}},
        {"clipped_gaussian": True},
        {"max_grad_norm": 0.5, "normalize_advantage": False},
    ],
    ids=str,
)
def test_every_setting_keeps_the_bound(settings: dict[str, Any]) -> None:
    model = make_model(target_kl=0.05, **settings)
    kl = kl_of_acting_again(model)
    assert model.last_step is not None
    assert model.last_step.accepted
    if "clipped_gaussian" not in settings:  # whose KL is that of the clipped actions
        assert model.last_step.kl == pytest.approx(kl, rel=1e-3)
        assert kl <= 0.05 * (1.0 + 1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bptt_length", [None, 3])
def test_updates_by_hand_and_by_autograd_agree(kind: str, bptt_length: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for by_hand in (True, False):
        model = collect(make_model(policy_kwargs=KINDS[kind], batch_size=72, bptt_length=bptt_length))
        if not by_hand:
            monkeypatch.setattr(trpo_module, "plain_policy", lambda _: Reason("not now"))
            monkeypatch.setattr(critic_epochs._SequenceEpoch, "__call__", lambda _: pytest.fail("not called"))
        model.train()
        results.append(flatten(list(model.policy.parameters())))
    th.testing.assert_close(*results, rtol=1e-2, atol=1e-4)


class FlatLstm(FlattenExtractor):
    """What an LSTM computes whose forget gates are shut and whose recurrent weights are zero."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.gates = nn.Linear(self.features_dim, 20)
        self._features_dim = 5

    def forward(self, observations: th.Tensor) -> th.Tensor:
        i, _, g, o = self.gates(super().forward(observations)).chunk(4, dim=1)
        h: th.Tensor = o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()
        return h


def test_without_recurrent_weights_the_step_is_that_of_trpo() -> None:
    model = make_model(policy_kwargs={"enable_critic_lstm": False}, n_critic_updates=0)
    recurrent: Any = model.policy
    rnn = recurrent.lstm_actor
    with th.no_grad():
        perturb([rnn.weight_ih_l0, rnn.bias_ih_l0], 0.3)
        rnn.weight_hh_l0.zero_()
        rnn.bias_hh_l0.zero_()
        rnn.bias_ih_l0[5:10] = -200.0  # the forget gate
    rnn.weight_hh_l0.requires_grad_(False)
    rnn.bias_hh_l0.requires_grad_(False)
    options: dict[str, Any] = {"features_extractor_class": FlatLstm, "net_arch": [4], "share_features_extractor": False}
    plain = TRPO("MlpPolicy", make_env(), **{**SETTINGS, "n_critic_updates": 0}, policy_kwargs=options)
    feed_forward: Any = plain.policy
    with th.no_grad():
        gates = feed_forward.pi_features_extractor.gates
        gates.weight.copy_(rnn.weight_ih_l0)
        gates.bias.copy_(rnn.bias_ih_l0)
    for part in ("mlp_extractor", "action_net"):
        getattr(feed_forward, part).load_state_dict(getattr(recurrent, part).state_dict())
    collect(model)
    collect(plain)
    for name, value in vars(model.rollout_buffer).items():
        if isinstance(value, np.ndarray):
            setattr(plain.rollout_buffer, name, value.copy())
    model.train()
    plain.train()
    assert model.last_step is not None
    assert plain.last_step is not None
    assert model.last_step.outcome is plain.last_step.outcome is Outcome.ACCEPTED
    assert model.last_step.kl == pytest.approx(plain.last_step.kl, rel=1e-3)
    assert model.last_step.surrogate_gain == pytest.approx(plain.last_step.surrogate_gain, rel=1e-3)
    th.testing.assert_close(rnn.weight_ih_l0.detach(), gates.weight.detach(), rtol=1e-3, atol=1e-5)
    th.testing.assert_close(recurrent.action_net.weight, feed_forward.action_net.weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_every_observation_space(observations: str) -> None:
    policy = {"dict": "MultiInputLstmPolicy", "image": "CnnLstmPolicy"}.get(observations, "MlpLstmPolicy")
    env = make_env(2, observation_space=OBSERVATIONS[observations], action_space=ACTIONS["discrete"])
    extractor = {"features_extractor_kwargs": {"features_dim": 8}} if observations == "image" else {}
    model = make_model(env, policy, n_steps=12, policy_kwargs=extractor).learn(24)
    assert model.last_step is not None
    assert model.last_step.accepted
    actions, state = model.predict(env.reset(), episode_start=np.ones(2, dtype=bool))
    assert actions.shape == (2,)
    assert state is not None
    assert state[0].shape == (1, 2, 5)


def test_squashed_gsde_uses_the_whole_action_space() -> None:
    seen: list[float] = []

    class Wide(RandomEnv):
        def __init__(self) -> None:
            super().__init__(action_space=spaces.Box(-2.0, 2.0, (2,), dtype=np.float32))

        def step(self, action: Any) -> Any:
            seen.append(float(np.abs(action).max()))
            return super().step(action)

    kwargs = {"squash_output": True, "log_std_init": 1.0}
    model = make_model(DummyVecEnv([Wide] * 2), use_sde=True, sde_sample_freq=4, policy_kwargs=kwargs).learn(96)
    assert 1.5 < max(seen) <= 2.0
    assert model.last_step is not None
    assert model.last_step.accepted


def test_vec_normalize_and_evaluation() -> None:
    model = make_model(VecNormalize(make_env())).learn(144)
    assert model.env is not None
    mean, _ = evaluate_policy(model, model.env, n_eval_episodes=3, warn=False)
    assert np.isfinite(mean)


def test_batch_of_a_rollout_is_its_windows() -> None:
    model = collect(make_model(make_env(2)))
    batch = read_batch(model.rollout_buffer, model.action_space, model.interface.state_fields)
    arranged = model.interface.arrange(batch, 2).checked()
    assert arranged.states.unit_lengths.tolist() == [3, 3, 7, 7, 7, 7, 7, 7]
    list(model.rollout_buffer.get(8))  # sorts the arrays by environment in place
    again = read_batch(model.rollout_buffer, model.action_space, model.interface.state_fields)
    assert again.states.episode_starts is not None
    assert batch.states.episode_starts is not None
    assert th.equal(again.states.episode_starts, batch.states.episode_starts)
    th.testing.assert_close(again.returns, batch.returns)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    model = make_model(policy_kwargs=KINDS[kind], bptt_length=4).learn(144)
    path = tmp_path / "model.zip"
    model.save(path)
    loaded = RecurrentTRPO.load(path, env=make_env())
    assert loaded.bptt_length == 4
    obs = np.ones((2, 3), dtype=np.float32)
    _, state = model.predict(obs)
    actions = [m.predict(obs, state, deterministic=True)[0] for m in (loaded, model)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert isinstance(loaded.interface, RecurrentInterface)
    assert loaded.interface.memory == ()  # not saved
    loaded.learn(72, reset_num_timesteps=False)
    assert loaded.num_timesteps == 216


def test_a_file_that_names_the_class_of_contrib(tmp_path: Path) -> None:
    model = make_model().learn(72)
    model.save(tmp_path / "model.zip")
    loaded = RecurrentTRPO.load(tmp_path / "model.zip", custom_objects={"policy_class": RecurrentActorCriticPolicy})
    assert type(loaded.policy) is MlpLstmPolicy


@pytest.mark.parametrize("kind", ["lstm", "two_layers", "shared", "critic_without"])
@pytest.mark.parametrize("from_file", [True, False])
def test_from_recurrent_ppo_and_back(kind: str, from_file: bool, tmp_path: Path) -> None:
    kwargs = {**SMALL, **KINDS[kind]}
    theirs = RecurrentPPO("MlpLstmPolicy", make_env(), n_steps=24, batch_size=24, n_epochs=1, policy_kwargs=kwargs).learn(72)
    theirs.save(tmp_path / "ppo.zip")
    model = RecurrentTRPO.from_ppo(tmp_path / "ppo.zip" if from_file else theirs, make_env(), batch_size=24)
    assert type(model.policy) is MlpLstmPolicy
    assert model.num_timesteps == 72
    obs = np.ones((2, 3), dtype=np.float32)
    _, state = theirs.predict(obs)
    expected = theirs.predict(obs, state, deterministic=True)
    np.testing.assert_allclose(model.predict(obs, state, deterministic=True)[0], expected[0], rtol=1e-5)
    model.learn(72)
    theirs.policy.load_state_dict(model.policy.state_dict())
    states: list[Any] = [m.predict(obs)[1] for m in (theirs, model)]
    np.testing.assert_allclose(states[0], states[1], rtol=1e-4, atol=1e-6)


def test_other_models_are_refused() -> None:
    ppo = PPO("MlpPolicy", make_env(), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="needs an on-policy model with an LSTM and without masks, not a PPO"):
        RecurrentTRPO.from_ppo(ppo)
    theirs = RecurrentPPO("MlpLstmPolicy", make_env(), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="with neither recurrence nor masks, not a RecurrentPPO"):
        TRPO.from_ppo(theirs)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"bptt_length": 0}, ValueError, "`bptt_length` must be None or an integer >= 1, not 0"),
        ({"bptt_length": 1.5}, ValueError, "`bptt_length` must be None or an integer >= 1"),
        ({"bptt_lenght": 5}, TypeError, "has no argument 'bptt_lenght'; did you mean 'bptt_length'"),
        ({"policy": "MlpPolicy"}, ValueError, "`policy` must be a class or one of 'MlpLstmPolicy'"),
        ({"policy": PPO}, TypeError, "is not a subclass of MlpLstmPolicy"),
        ({"rollout_buffer_class": OwnBuffer}, ValueError, "`rollout_buffer_class` must keep SB3's `get`"),
        ({"policy_kwargs": {"rnn_type": "rnn"}}, ValueError, "`rnn_type` must be 'lstm' or 'gru'"),
        ({"policy_kwargs": {"net_arch": {"policy": [4]}}}, ValueError, "the dict `net_arch`"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RecurrentTRPO(**{"policy": "MlpLstmPolicy", "env": RandomEnv(), "n_steps": 8, "batch_size": 8, **settings})


def test_trpo_refuses_recurrent_policies() -> None:
    with pytest.raises(TypeError, match="without recurrence"):
        TRPO(MlpLstmPolicy, RandomEnv(), n_steps=8, batch_size=8)


def test_a_loop_that_forgets_the_state_is_told_once() -> None:
    model, obs = make_model(), np.zeros((3, 3), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):  # episodes that pass the state on
            state = None
            for _ in range(20):
                _, state = model.predict(obs, state)
        for _ in range(30):  # first steps of episodes
            model.predict(obs, episode_start=np.ones(3, dtype=bool))
    for _ in range(9):
        model.predict(obs)
    with pytest.warns(UserWarning, match="without `state`, so the policy has no memory"):
        model.predict(obs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(30):
            model.predict(obs)


def test_a_rollout_takes_a_tenth_of_the_memory_of_recurrent_ppo() -> None:
    options: dict[str, Any] = {"n_steps": 256, "policy_kwargs": {"lstm_hidden_size": 256}}

    def size(model: Any, *extra: np.ndarray) -> int:
        return sum(value.nbytes for value in vars(model.rollout_buffer).values() if isinstance(value, np.ndarray)) + sum(
            value.nbytes for value in extra
        )

    ours = RecurrentTRPO("MlpLstmPolicy", make_env(8), batch_size=256, **options)
    collect(ours)
    theirs = RecurrentPPO("MlpLstmPolicy", make_env(8), batch_size=256, **options)
    theirs.rollout_buffer.reset()
    assert isinstance(ours.interface, RecurrentInterface)
    kept = [part.numpy() for part in (*ours.interface.memory, *ours.interface.first_memory)]
    assert size(ours, *kept) < 0.1 * size(theirs)


class Recall(RandomEnv):
    """Shows a sign at the first step; the second action must repeat it. Without memory, half of the episodes succeed."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(-1.0, 1.0, (1,), dtype=np.float32), spaces.Discrete(2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sign = int(self.np_random.integers(2))
        return np.array([2.0 * self.sign - 1.0], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, dtype=np.float32), float(self.steps == 2 and int(action) == self.sign), self.steps == 2, False, {}


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_a_task_that_needs_memory_is_solved(rnn_type: str) -> None:
    env = DummyVecEnv([Recall] * 4)
    env.seed(0)
    kwargs = {"rnn_type": rnn_type, "lstm_hidden_size": 8, "net_arch": [8]}
    model = RecurrentTRPO(
        "MlpLstmPolicy", env, n_steps=64, batch_size=256, seed=0, target_kl=0.1, cg_damping=1e-3, policy_kwargs=kwargs
    ).learn(6_000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=40, warn=False)
    assert mean == 1.0


def test_other_classes_name_the_one_for_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 'MlpLstmPolicy'; RecurrentTRPO and MaskableRecurrentTRPO have policies with"):
        TRPO("MlpLstmPolicy", "CartPole-v1")
    RecurrentTRPO("MlpLstmPolicy", "CartPole-v1", policy_kwargs={"lstm_hidden_size": 4}).save(tmp_path / "model")
    with pytest.raises(TypeError, match=r"as recurrent policies do; RecurrentTRPO has them$"):
        TRPO.load(tmp_path / "model")

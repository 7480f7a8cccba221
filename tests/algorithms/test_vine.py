"""Vine sampling has exact Q-values and the paper's estimators, leaves the trunk unchanged and counts all steps."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.algorithms.vine import VineBatch, _random_numbers
from sb3_trpo.batch.states import States
from sb3_trpo.batch.subsets import fisher_subsets
from sb3_trpo.rollout.bootstrap import torch_values
from sb3_trpo.rollout.numpy_actor import NumpyActor
from sb3_trpo.step.report import Outcome
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import MaskedPolicy, OwnBuffer, actor_of, actor_parameters, make_policy, plain
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

gym.register_envs(ale_py)

SMALL: dict[str, Any] = {"n_steps": 24, "batch_size": 24, "n_branch_states": 6, "branch_length": 5, "seed": 0}


class Line(gym.Env[np.ndarray, Any]):
    """
    Walks on the integers from 0: action 0 goes left, action 1 goes right, and the reward is the new position.

    :param end: distance from 0 at which the episode ends
    :param truncate: whether the end counts as a time limit
    """

    observation_space = spaces.Box(-100.0, 100.0, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, end: int = 100, truncate: bool = False) -> None:
        self.end, self.truncate = end, truncate
        self.place = 0

    def get_state(self) -> int:
        return self.place

    def set_state(self, state: int) -> None:
        self.place = state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return np.array([0.0], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1 if action else -1
        done = abs(self.place) >= self.end
        observation = np.array([self.place], dtype=np.float32)
        return observation, float(self.place), done and not self.truncate, done and self.truncate, {}


def collected(model: VineTRPO) -> VineBatch:
    """Collect one rollout without an update."""
    _, callback = model._setup_learn(10_000)
    callback.on_training_start({}, {})
    assert model.env is not None
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model._branches


@pytest.mark.parametrize("truncate", [False, True])
def test_q_values_of_single_steps_are_exact(truncate: bool) -> None:
    env = DummyVecEnv([lambda: Line(3, truncate)] * 2)
    model = VineTRPO("MlpPolicy", env, **{**SMALL, "branch_length": 1, "gamma": 0.9})
    batch = collected(model)
    assert batch.branch_actions.tolist() == [[0, 1]] * 6
    places = batch.states.observations.numpy().flatten()  # type: ignore[union-attr]
    for k, step in enumerate((-1.0, 1.0)):
        after = (places + step).astype(np.float32)
        ended = (np.abs(after) >= 3.0) & (not truncate)
        values = torch_values(model.interface, after[:, None], [0] * len(after))
        np.testing.assert_allclose(batch.returns[:, k], after + 0.9 * np.where(ended, 0.0, values), atol=1e-5)
    assert len(set(places)) > 1


@pytest.mark.parametrize("n_rollouts", [1, 3])
def test_q_values_of_longer_branches_are_exact(n_rollouts: int) -> None:
    # the policy always goes right, so the rollout of each state is known
    env = DummyVecEnv([lambda: Line(7)])
    model = VineTRPO("MlpPolicy", env, **{**SMALL, "gamma": 0.5, "n_branch_rollouts": n_rollouts})
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").copy_(th.tensor([-50.0, 50.0]))
    batch = collected(model)
    for place, q_values in zip(batch.states.observations.flatten().tolist(), batch.returns.tolist(), strict=True):  # type: ignore[union-attr]
        for step, q_value in zip((-1, 1), q_values, strict=True):
            path = [place + step + j for j in range(5)]
            if 7 in path:
                path = path[: path.index(7) + 1]
            expected = sum(0.5**j * reward for j, reward in enumerate(path))
            if path[-1] != 7:
                expected += 0.5**5 * torch_values(model.interface, np.array([[path[-1]]], dtype=np.float32), [0])[0]
            assert q_value == pytest.approx(expected, abs=1e-4)
    assert model.branch_steps <= 6 * 2 * 5 * n_rollouts


@pytest.mark.parametrize("buffer", [None, OwnBuffer])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_q_values_are_in_the_order_of_their_states(buffer: Any, n_envs: int) -> None:
    env = DummyVecEnv([lambda: Line(10)] * n_envs)
    model = VineTRPO("MlpPolicy", env, **{**SMALL, "branch_length": 1, "gamma": 0.0, "rollout_buffer_class": buffer})
    batch = collected(model)
    assert isinstance(batch.states.observations, th.Tensor)
    th.testing.assert_close(
        batch.returns, batch.states.observations + th.tensor([[-1.0, 1.0]])
    )  # the reward is the new position
    assert len(set(batch.states.observations.flatten().tolist())) > 1


class Lottery(Line):
    """Rewards with a random number of the environment."""

    def get_state(self) -> Any:
        return self.place, self.np_random.bit_generator.state

    def set_state(self, state: Any) -> None:
        self.place, self.np_random.bit_generator.state = state

    def step(self, action: Any) -> Any:
        return np.zeros(1, dtype=np.float32), self.np_random.normal(), True, False, {}


def test_rollouts_average_the_randomness_of_the_environment() -> None:
    spread = []
    for n_rollouts in (1, 64):
        settings = {**SMALL, "n_steps": 120, "n_branch_states": 120, "n_branch_rollouts": n_rollouts}
        q_values = collected(VineTRPO("MlpPolicy", Lottery(), **settings)).returns
        th.testing.assert_close(q_values[:, 0], q_values[:, 1])  # both actions see the same numbers
        spread.append(q_values.std().item())
    assert spread[0] == pytest.approx(1.0, rel=0.2)
    assert spread[1] == pytest.approx(1.0 / 8.0, rel=0.2)


class OwnCategorical(CategoricalDistribution):
    """Counts as a distribution whose KL has no closed form."""

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        return super().log_prob(actions)


class OwnCategoricalPolicy(ActorCriticPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action_dist = OwnCategorical(2)


def test_without_a_closed_form_the_kl_is_estimated_on_draws_from_the_policy() -> None:
    model = VineTRPO(OwnCategoricalPolicy, Line(), **{**SMALL, "n_steps": 480, "n_branch_states": 480, "branch_length": 1})
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").copy_(th.tensor([0.0, 1.0]))
        model.policy.get_parameter("action_net.weight").zero_()
    batch = collected(model)
    assert batch.actions.float().mean().item() == pytest.approx(1.0 / (1.0 + np.exp(-1.0)), abs=0.07)


class OneWay(gym.Env[np.ndarray, Any]):
    """Has three actions: the first is forbidden and the last is best."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(3)

    def get_state(self) -> None:
        return None

    def set_state(self, state: None) -> None:
        pass

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action != 0
        return np.zeros(1, dtype=np.float32), float(action), True, False, {}


def test_actions_that_the_policy_rules_out_are_not_tried() -> None:
    model = VineTRPO(MaskedPolicy, OneWay(), **{**SMALL, "ent_coef": 0.01}).learn(200)
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.ACCEPTED
    probabilities = model.policy.get_distribution(th.zeros(1, 1)).distribution.probs  # type: ignore[union-attr]
    assert probabilities[0, 0].item() == 0.0
    assert probabilities[0, 2].item() > 0.7


def one_state(policy: Any, actions: th.Tensor, q: th.Tensor, weights: th.Tensor) -> VineBatch:
    observations = th.tensor([[0.3, -0.2, 0.5]], dtype=q.dtype)
    with th.no_grad():
        distribution = policy.get_distribution(observations)
        log_prob = th.stack([distribution.log_prob(action) for action in actions.unbind(1)], dim=1)
    mean = (weights * q).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    return VineBatch(
        States(observations), actions[:, 0], log_prob, q - mean, q, branch_actions=actions, branch_weights=weights
    )


def test_all_actions_give_the_exact_sum() -> None:
    policy = make_policy(action_space=spaces.Discrete(3))
    q = th.tensor([[1.0, -2.0, 0.5]], dtype=th.float64)
    actions = th.arange(3)[None]
    with th.no_grad():
        weights = policy.get_distribution(th.tensor([[0.3, -0.2, 0.5]], dtype=q.dtype)).distribution.probs  # type: ignore[union-attr]
    batch = one_state(policy, actions, q, weights)
    parameters = actor_parameters(policy)
    gradient = Surrogate(actor_of(policy), batch, 0.0, 10).gradient(parameters)
    expected = (policy.get_distribution(batch.states.observations).distribution.probs * q).sum()  # type: ignore[union-attr]
    by_hand = th.cat([part.flatten() for part in th.autograd.grad(expected, parameters)])
    th.testing.assert_close(gradient, by_hand)


def test_sampled_actions_give_the_self_normalised_estimate() -> None:
    policy = make_policy(action_space=spaces.Box(-1.0, 1.0, (2,)))
    actions, q = th.randn(1, 4, 2, dtype=th.float64), th.randn(1, 4, dtype=th.float64)
    parameters = actor_parameters(policy)
    gradients = []
    for shift in (0.0, 100.0):  # the estimate needs no baseline
        batch = one_state(policy, actions, q + shift, th.ones(1, 4, dtype=th.float64))
        gradients.append(Surrogate(actor_of(policy), batch, 0.0, 10).gradient(parameters))
    distribution = policy.get_distribution(batch.states.observations)
    log_prob = th.stack([distribution.log_prob(action) for action in actions.unbind(1)], dim=1)
    ratio = (log_prob - log_prob.detach()).exp()
    expected = ((ratio * q).sum(dim=1) / ratio.sum(dim=1)).sum()
    by_hand = th.cat([part.flatten() for part in th.autograd.grad(expected, parameters)])
    for gradient in gradients:
        th.testing.assert_close(gradient, by_hand)


ENVS: dict[str, Any] = {
    "mujoco": lambda: make_vec_env("Hopper-v5", 2, seed=0),
    "normalised": lambda: VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0)),
    "classic control": lambda: make_vec_env("CartPole-v1", 3, seed=0),
    "game": lambda: VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", 2, seed=0), 4),
}


def policy_of(name: str) -> str:
    return "CnnPolicy" if name == "game" else "MlpPolicy"


@pytest.mark.parametrize("name", ENVS)
def test_the_trunk_equals_a_rollout_of_single_path(name: str) -> None:
    buffers = []
    vine: dict[str, Any] = {"n_branch_states": 6, "branch_length": 5}
    extras: list[tuple[type[TRPO], dict[str, Any]]] = [(TRPO, {}), (VineTRPO, vine)]
    for cls, extra in extras:
        model = cls(policy_of(name), ENVS[name](), n_steps=24, batch_size=24, seed=0, n_critic_updates=1, **extra)
        _, callback = model._setup_learn(10_000)
        callback.on_training_start({}, {})
        for _ in range(2):  # the second rollout begins in the state that the branches restored
            assert model.collect_rollouts(model.env, callback, model.rollout_buffer, 24)  # type: ignore[arg-type]
        buffers.append((model.rollout_buffer, list(model.ep_info_buffer or [])))
    for key in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "episode_starts"):
        np.testing.assert_array_equal(getattr(buffers[0][0], key), getattr(buffers[1][0], key))
    assert [(e["r"], e["l"]) for e in buffers[0][1]] == [(e["r"], e["l"]) for e in buffers[1][1]]


class Recorder(BaseCallback):
    """Counts its calls and records the model's step count at the end of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.ends.append(self.model.num_timesteps)


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_simulator_calls_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    calls = 0

    class Counting(Line):
        def step(self, action: Any) -> Any:
            nonlocal calls
            calls += 1
            return super().step(action)

    recorder = Recorder()
    model = VineTRPO("MlpPolicy", DummyVecEnv([Counting] * 2), verbose=1, **SMALL)
    calls = 0  # the replay check has stepped too
    model.learn(300, callback=recorder, progress_bar=True)
    per_rollout = 24 * 2 + 6 * 2 * 5
    assert calls == model.num_timesteps == model.trunk_steps + model.branch_steps == 3 * per_rollout
    assert model.trunk_steps == 3 * 48
    assert recorder.ends == [per_rollout, 2 * per_rollout, 3 * per_rollout]
    assert recorder.n_calls == 3 * 24
    output = capsys.readouterr()
    assert "trunk_steps" in output.out
    assert "324/300" in output.out + output.err


def test_steps_of_a_stopped_rollout_are_counted() -> None:
    model = VineTRPO("MlpPolicy", DummyVecEnv([Line] * 2), **SMALL)
    model.learn(300, callback=lambda local, _: model.branch_steps == 0 or local["n_steps"] < 5)
    assert model.branch_steps > 0
    assert model.num_timesteps == model.trunk_steps + model.branch_steps
    assert model.trunk_steps == 24 * 2 + 6 * 2


@pytest.mark.parametrize(("n_steps", "n_envs", "states"), [(64, 1, 2), (32, 3, 3), (2, 3, 3), (80, 2, 6)])
def test_by_default_one_state_in_32_branches(n_steps: int, n_envs: int, states: int) -> None:
    model = VineTRPO("MlpPolicy", DummyVecEnv([Line] * n_envs), n_steps=n_steps, batch_size=n_steps * n_envs, branch_length=1)
    model.learn(1)
    assert (model.trunk_steps, model.branch_steps) == (n_steps * n_envs, states * 2)
    model.learn(1)  # counts anew, as num_timesteps does
    assert (model.trunk_steps, model.branch_steps) == (n_steps * n_envs, states * 2)


def test_branches_with_equal_q_values_give_no_signal() -> None:
    class Indifferent(Line):
        def step(self, action: Any) -> Any:
            return super().step(1)

    model = VineTRPO("MlpPolicy", DummyVecEnv([Indifferent]), **SMALL, normalize_observations=False)
    batch = collected(model)
    assert (batch.advantages == 0.0).all()  # all branches see the same random numbers
    model.train()
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.ZERO_SIGNAL


@pytest.mark.parametrize(
    ("policy", "observations", "actions", "kwargs"),
    [
        ("MlpPolicy", "vector", "box", {}),
        ("MlpPolicy", "vector", "box", {"use_sde": True}),
        ("MlpPolicy", "vector", "discrete", {"n_branch_actions": 2}),
        ("MlpPolicy", "vector", "box_matrix", {}),
        ("MlpPolicy", "vector", "multi_discrete", {}),
        ("MlpPolicy", "vector", "multi_binary", {"n_branch_rollouts": 2}),
        ("CnnPolicy", "image", "discrete", {"n_branch_actions": "all"}),
        ("MultiInputPolicy", "dict", "discrete", {"sub_sampling_factor": 2, "ent_coef": 0.1}),
        ("MlpPolicy", "vector", "box", {"fisher_sample_fraction": 0.5, "chunk_size": 2}),
    ],
)
def test_every_kind_of_policy_takes_a_step(policy: str, observations: str, actions: str, kwargs: dict[str, Any]) -> None:
    class Restorable(RandomEnv):
        def get_state(self) -> Any:
            return self.steps

        def set_state(self, state: Any) -> None:
            self.steps = state

    env = DummyVecEnv([lambda: Restorable(OBSERVATIONS[observations], ACTIONS[actions])] * 2)
    model = VineTRPO(policy, env, **SMALL, **kwargs).learn(300)
    assert model.last_step is not None
    assert model.last_step.outcome in (Outcome.ACCEPTED, Outcome.LINE_SEARCH_FAILED)
    assert model.last_step.kl <= 0.03


def test_actions_of_gsde_differ_within_a_state() -> None:
    model = VineTRPO("MlpPolicy", "Pendulum-v1", use_sde=True, n_branch_actions=3, **SMALL).learn(24)
    actions = model._branches.branch_actions
    assert all((actions[:, k] != actions[:, j]).all() for k, j in ((0, 1), (0, 2), (1, 2)))
    assert model.last_step is not None
    assert model.last_step.accepted


@pytest.mark.parametrize("n_branch_states", [1, 2])
def test_few_branching_states_take_a_step(n_branch_states: int) -> None:
    model = VineTRPO("MlpPolicy", DummyVecEnv([Line]), **{**SMALL, "n_branch_states": n_branch_states}).learn(24)
    assert model.last_step is not None
    assert model.last_step.outcome in (Outcome.ACCEPTED, Outcome.LINE_SEARCH_FAILED)


def test_without_a_seed_runs_branch_from_different_states() -> None:
    steps = []
    for seed in (None, None, 3, 3):
        model = VineTRPO("MlpPolicy", DummyVecEnv([Line]), **{**SMALL, "seed": seed})
        collected(model)
        steps.append(model._branching_steps.tolist())
    assert steps[0] != steps[1]
    assert steps[2] == steps[3]


def test_it_learns() -> None:
    model = VineTRPO("MlpPolicy", "CartPole-v1", n_steps=256, batch_size=64, seed=0).learn(60_000)
    lengths = [episode["l"] for episode in list(model.ep_info_buffer or [])[-5:]]
    assert np.mean(lengths) > 120.0


def test_a_seed_repeats_the_run_whatever_the_global_generators() -> None:
    runs = [VineTRPO("MlpPolicy", make_vec_env("Hopper-v5", 2, seed=0), **SMALL).learn(500) for _ in range(2)]
    vectors = [th.nn.utils.parameters_to_vector(model.policy.parameters()) for model in runs]
    assert th.equal(*vectors)


def test_save_and_load(tmp_path: Path) -> None:
    model = VineTRPO("MlpPolicy", "CartPole-v1", **SMALL).learn(500)
    model.save(tmp_path / "vine")
    again = VineTRPO.load(tmp_path / "vine", env=gym.make("CartPole-v1"))
    assert (again.branch_length, again.branch_steps, again.num_timesteps) == (5, model.branch_steps, model.num_timesteps)
    again.learn(500, reset_num_timesteps=False)
    assert again.num_timesteps > model.num_timesteps
    TRPO.load(tmp_path / "vine", env=gym.make("CartPole-v1")).learn(24)


def test_an_environment_that_is_set_later_is_checked_then(tmp_path: Path) -> None:
    VineTRPO("MlpPolicy", "CartPole-v1", **SMALL).save(tmp_path / "vine")
    model = VineTRPO.load(tmp_path / "vine")
    env = make_vec_env("CartPole-v1")
    model.set_env(env)
    model.learn(24)
    assert model._simulator.is_of(env)
    model.set_env(make_vec_env("CartPole-v1"))
    assert not model._simulator.is_of(model.env)  # type: ignore[arg-type]
    model.learn(24)


def test_from_ppo_copies_the_settings_of_a_vine_model() -> None:
    settings: dict[str, Any] = {"n_branch_states": 3, "n_branch_actions": 2, "branch_length": 4, "n_branch_rollouts": 2}
    model = VineTRPO.from_ppo(VineTRPO("MlpPolicy", Line(), n_steps=64, batch_size=16, **settings))
    assert {name: getattr(model, name) for name in settings} == settings


class Faulty(Line):
    """Returns a NaN reward for action 1, which only the branches take."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return (observation, np.nan if action else reward, *rest)


def test_a_nan_in_a_branch_is_named_and_the_trunk_is_restored() -> None:
    model = VineTRPO("MlpPolicy", DummyVecEnv([Faulty]), **SMALL)
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").copy_(th.tensor([50.0, -50.0]))
    before = th.nn.utils.parameters_to_vector(model.policy.parameters())
    step = sorted(np.random.default_rng((0, 0, 0)).choice(24, 6, replace=False))[0]
    with pytest.raises(ValueError, match=f"Q-value of environment 0 at step {step} of the rollout is not finite"):
        model.learn(100)
    assert th.equal(before, th.nn.utils.parameters_to_vector(model.policy.parameters()))
    env: Any = model.env
    assert env.envs[0].unwrapped.place == -24


class BadAfterTheEnd(Line):
    """Returns NaN rewards and observations after the end of its first episode."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.over = False

    def get_state(self) -> Any:
        return self.place, self.over

    def set_state(self, state: Any) -> None:
        self.place, self.over = state

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        bad = self.over
        self.over = self.over or terminated
        return (
            (np.full_like(observation, np.nan), np.nan, False, False, info)
            if bad
            else (observation, reward, terminated, truncated, info)
        )

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return (np.full_like(observation, np.nan) if self.over else observation), info


@pytest.mark.parametrize("sde", [False, True])
def test_nans_of_an_environment_whose_branch_is_over_are_ignored(sde: bool) -> None:
    env = DummyVecEnv([lambda: BadAfterTheEnd(100), lambda: BadAfterTheEnd(2)])
    policy = "MlpPolicy" if not sde else OwnCategoricalPolicy  # the custom policy acts with torch
    model = VineTRPO(policy, env, **SMALL)
    env.reset()
    snapshot = model._simulator.save()
    model._simulator.restore(snapshot)
    actor = None if sde else NumpyActor(plain(model.policy), model.branch_length, 2)
    with model._simulator.excursion() as branch_env:
        returns = model._branch(branch_env, np.array([1, 1]), actor, partial(torch_values, model.interface), 0)
    assert np.isfinite(returns).all()


@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_leave_other_devices_alone(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("another device's generator was seeded")

    for module in (th.cuda, th.xpu, th.mps):
        monkeypatch.setattr(module, "manual_seed_all" if module is not th.mps else "manual_seed", refuse)
    monkeypatch.setattr(th.cuda, "manual_seed", refuse)
    before = th.get_rng_state()
    with contextlib.suppress(KeyError), _random_numbers(3, th.device("cpu")):
        assert th.initial_seed() == 3
        drawn = th.rand(2)
        if fails:
            raise KeyError
    assert th.equal(th.get_rng_state(), before)
    assert th.equal(drawn, th.rand(2, generator=th.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_branch_states": 0}, "`n_branch_states` must be None or an integer >= 1, not 0"),
        ({"n_branch_states": 25}, "`n_branch_states` must be at most `n_steps \\* n_envs` = 24, not 25"),
        ({"branch_length": 1.5}, "`branch_length` must be an integer >= 1, not 1.5"),
        ({"n_branch_rollouts": -1}, "`n_branch_rollouts` must be an integer >= 1, not -1"),
        ({"n_branch_actions": 1}, "`n_branch_actions` must be None, 'all' or an integer >= 2, not 1"),
        ({"n_branch_actions": "some"}, "`n_branch_actions` must be .* not 'some'"),
    ],
)
def test_bad_hyperparameters_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VineTRPO("MlpPolicy", DummyVecEnv([Line]), **{**SMALL, **kwargs})


def test_all_actions_of_a_box_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be None or an integer >= 2 \(for Box.* not 'all'"):
        VineTRPO("MlpPolicy", "Pendulum-v1", n_branch_actions="all")


@pytest.mark.parametrize("make", [lambda: DummyVecEnv([RandomEnv])])
def test_an_environment_that_cannot_be_restored_is_refused(make: Any) -> None:
    env: VecEnv = make()
    with pytest.raises(ValueError, match=r"RandomEnv cannot be saved and restored; give it methods get_state\(\)"):
        VineTRPO("MlpPolicy", env)


def test_the_branching_steps_are_drawn_apart_from_the_fisher_matrix() -> None:
    model = VineTRPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=64, seed=0)
    steps = model._generator(0).choice(64, 6, replace=False)
    seeds = model._generator(1).choice(64, 6, replace=False)
    states = fisher_subsets(np.arange(64), 6 / 64, 64, model._fisher_seed())[0]
    assert len({tuple(np.sort(drawn)) for drawn in (steps, seeds, states)}) == 3


class Wider(VecEnvWrapper):
    """Observes every number twice."""

    def reset(self) -> Any:
        return self._twice(self.venv.reset())

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self._twice(info["terminal_observation"])
        return self._twice(obs), rewards, dones, infos

    def _twice(self, obs: Any) -> Any:
        return np.concatenate([obs, obs], axis=-1)


def test_observations_of_another_shape_in_a_branch_are_refused() -> None:
    model = VineTRPO("MlpPolicy", DummyVecEnv([lambda: Line(7)]), **SMALL)
    env = Wider(DummyVecEnv([lambda: Line(7)]))
    env.reset()
    with pytest.raises(ValueError, match=r"observations 1 steps into the branch at step 3 .*shape \(1, 2\), not \(1, 1\)"):
        model._branch(env, np.array([1]), None, lambda obs, _: obs, trunk_step=3)


def test_a_distribution_that_is_not_finite_is_refused_by_name() -> None:
    model = VineTRPO("MlpPolicy", Line(7), **SMALL, policy_kwargs={"activation_fn": th.nn.GELU})
    with th.no_grad():
        model.policy.get_parameter("action_net.bias").fill_(th.nan)
    with pytest.raises(ValueError, match="action distribution of environment 0 at step 0"):
        model.learn(64)

"""The promises of the class: the KL bound, rollback, zero signal, repeatability, and SB3's interface."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch as th
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

import sb3_trpo.algorithms.trpo as trpo_module
from sb3_trpo import TRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.subsets import fisher_subsets
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.step.report import Outcome, StepReport
from sb3_trpo.step.trust_region import trust_region_step
from sb3_trpo.update.policy_problem import PolicyProblem
from tests.helpers import MaskedPolicy, batch_of, reached, why_not_fast
from tests.toy_envs import ACTIONS, OBSERVATIONS, ConstantEnv, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 16, "seed": 0}


class OwnGaussian(DiagGaussianDistribution):
    """A Gaussian that computes its own log-probabilities, so that no closed form is assumed."""

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        return super().log_prob(actions)


class OwnPolicy(ActorCriticPolicy):
    """Acts from :class:`OwnGaussian`; the actor's layer is named after a value."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action_dist = OwnGaussian(self.action_space.shape[0])  # type: ignore[index]
        self.value_encoder = th.nn.Linear(3, 3)

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs, features_extractor)

    def get_distribution(self, obs: Any) -> Any:
        return super().get_distribution(self.value_encoder(obs))

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Any:
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)


class Attention(BaseFeaturesExtractor):
    """A transformer layer over the entries of the observation."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 24)
        self.embed = th.nn.Linear(1, 8)
        self.attend = th.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.attend(self.embed(observations.unsqueeze(-1))).flatten(1)
        return features


CASES: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    **{f"{actions} actions": ("MlpPolicy", "vector", actions, {}) for actions in ACTIONS},
    "gSDE": ("MlpPolicy", "vector", "box", {"use_sde": True, "sde_sample_freq": 4}),
    "squashed gSDE": (
        "MlpPolicy",
        "vector",
        "box",
        {"use_sde": True, "ent_coef": 0.01, "policy_kwargs": {"squash_output": True}},
    ),
    "images": ("CnnPolicy", "image", "discrete", {}),
    "separate extractors": ("CnnPolicy", "image", "box", {"policy_kwargs": {"share_features_extractor": False}}),
    "dict": ("MultiInputPolicy", "dict", "multi_discrete", {}),
    "discrete observations": ("MlpPolicy", "discrete", "discrete", {}),
    "multi_discrete observations": ("MlpPolicy", "multi_discrete", "box", {}),
    "multi_binary observations": ("MlpPolicy", "multi_binary", "multi_binary", {}),
    "float64": ("MlpPolicy", "float64", "box", {}),
    "uint8": ("MlpPolicy", "uint8", "box", {}),
    "custom policy and distribution": (OwnPolicy, "vector", "box", {}),
    "masked actions": (MaskedPolicy, "vector", "discrete", {}),
    "attention": ("MlpPolicy", "vector", "box", {"policy_kwargs": {"features_extractor_class": Attention}}),
    "chunks": ("MlpPolicy", "vector", "box", {"chunk_size": 7}),
    "sub-sampling": ("MlpPolicy", "vector", "box", {"sub_sampling_factor": 4}),
    "sub-sampling of a dict": ("MultiInputPolicy", "dict", "box", {"sub_sampling_factor": 4}),
    "part of the Fisher matrix": ("MlpPolicy", "vector", "box", {"fisher_sample_fraction": 0.2}),
    "entropy bonus": ("MlpPolicy", "vector", "discrete", {"ent_coef": 0.1}),
    "no normalisation": ("MlpPolicy", "vector", "box", {"normalize_advantage": False}),
    "no damping": ("MlpPolicy", "vector", "box", {"cg_damping": 0.0}),
    "a large bound": ("MlpPolicy", "vector", "box", {"target_kl": 0.5}),
    "a tiny bound": ("MlpPolicy", "vector", "box", {"target_kl": 1e-5}),
}


def make_model(case: str, **kwargs: Any) -> TRPO:
    policy, observations, actions, settings = CASES[case]
    env = make_vec_env(lambda: RandomEnv(OBSERVATIONS[observations], ACTIONS[actions], length=5, truncate=True), n_envs=2)
    return TRPO(policy, env, **{**SMALL, "n_steps": 32, **settings, **kwargs})


def distribution_parameters(model: TRPO, batch: Batch) -> list[th.Tensor]:
    """Parameters of the action distribution over the whole batch, in float64."""
    with th.no_grad():
        distribution = model.policy.get_distribution(batch.states.observations)
        family = distribution_family(distribution)
        return [part.double() for part in family.parameters(distribution, batch.actions)]


@pytest.mark.parametrize("case", CASES)
def test_every_update_keeps_the_kl_bound_over_the_whole_batch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(case, cg_damping=0.1)
    updates: list[tuple[float, StepReport]] = []
    train = TRPO.train

    def watched(self: TRPO) -> None:
        batch = batch_of(self)
        self.policy.set_training_mode(False)
        family = distribution_family(self.policy.get_distribution(batch.states.observations))
        old = distribution_parameters(self, batch)
        train(self)
        new = distribution_parameters(self, batch)
        assert self.last_step is not None
        updates.append((family.kl_old_new(tuple(old), tuple(new)).mean().item(), self.last_step))

    monkeypatch.setattr(TRPO, "train", watched)
    model.learn(64 * 6)
    assert len(updates) == 6
    bound = make_schedule("target_kl", model.target_kl)(0.0)
    assert all(kl <= bound * (1 + 1e-4) for kl, _ in updates)
    assert all(kl == pytest.approx(report.kl, rel=1e-2, abs=1e-7) for kl, report in updates)
    # and the step is not too short
    assert sum(report.accepted for _, report in updates) >= 5
    assert np.median([kl for kl, _ in updates]) > 0.3 * bound


def actor_and_critic(model: TRPO) -> tuple[th.Tensor, th.Tensor]:
    batch = batch_of(model)
    model.policy.set_training_mode(False)
    actor = reached(model.policy, batch)
    ids = {id(p) for p in actor}
    critic = [p for p in model.policy.parameters() if id(p) not in ids]
    return tuple(th.cat([p.detach().flatten() for p in group]).clone() for group in (actor, critic))  # type: ignore[return-value]


@pytest.mark.parametrize("case", ["box actions", "images", "dict", "gSDE", "custom policy and distribution"])
def test_a_failed_search_leaves_every_bit_of_the_actor(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(case).learn(64)
    actor, critic = actor_and_critic(model)

    class Outside(PolicyProblem):
        def evaluate(self, max_kl: float = np.inf) -> Any:
            return super().evaluate(max_kl)._replace(kl=1.0)

    monkeypatch.setattr(trpo_module, "PolicyProblem", Outside)
    model.learn(64 * 3, reset_num_timesteps=False)
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.LINE_SEARCH_FAILED
    assert model.last_step.line_search_steps == 10
    assert model.last_step.kl == model.last_step.step_fraction == model.last_step.surrogate_gain == 0.0
    actor_after, critic_after = actor_and_critic(model)
    assert th.equal(actor, actor_after)
    assert not th.equal(critic, critic_after)


@pytest.mark.parametrize("independent", [True, False])
def test_few_states_in_the_fisher_matrix_do_not_make_the_step_too_long(
    independent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not independent:  # as if the solver's states measured the step's length
        monkeypatch.setattr("sb3_trpo.algorithms.trpo.fisher_subsets", lambda *args: (fisher_subsets(*args)[0], np.arange(0)))
    few: dict[str, Any] = {"fisher_sample_fraction": 0.02, "cg_damping": 1e-4}
    model = TRPO("MlpPolicy", "Pendulum-v1", n_steps=512, n_critic_updates=1, seed=0, **few)
    accepted = []
    for _ in range(8):
        model.learn(512, reset_num_timesteps=False)
        assert model.last_step is not None
        accepted.append(model.last_step.accepted)
    assert all(accepted) is independent


@pytest.mark.parametrize("normalize_advantage", [True, False])
@pytest.mark.parametrize("actions", ACTIONS)
def test_no_step_on_zero_signal(normalize_advantage: bool, actions: str) -> None:
    env = ConstantEnv(action_space=ACTIONS[actions])
    model = TRPO("MlpPolicy", env, normalize_advantage=normalize_advantage, **SMALL).learn(64)
    actor, critic = actor_and_critic(model)
    for _ in range(12):
        model.learn(64, reset_num_timesteps=False)
        assert model.last_step is not None
        assert model.last_step.outcome is Outcome.ZERO_SIGNAL
    actor_after, critic_after = actor_and_critic(model)
    assert th.equal(actor, actor_after)
    assert not th.equal(critic, critic_after)


def test_entropy_bonus_works_without_any_other_signal() -> None:
    model = TRPO("MlpPolicy", ConstantEnv(), ent_coef=0.01, **SMALL)
    before = model.policy.log_std.mean().item()
    model.learn(64 * 3)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert model.policy.log_std.mean().item() > before


def test_entropy_bonus_follows_its_schedule() -> None:
    outcomes: list[Outcome] = []

    class Watched(TRPO):
        def train(self) -> None:
            super().train()
            assert self.last_step is not None
            outcomes.append(self.last_step.outcome)

    Watched("MlpPolicy", ConstantEnv(), ent_coef=lambda progress: 0.01 * (progress >= 0.5), **SMALL).learn(64 * 4)
    assert outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.ZERO_SIGNAL, Outcome.ZERO_SIGNAL]


def test_without_critic_updates_nothing_is_computed_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("box actions", n_critic_updates=0)
    monkeypatch.setattr("sb3_trpo.algorithms.trpo.make_epoch", lambda *_: pytest.fail("the critic's features were computed"))
    model.learn(64)
    assert "train/value_loss" not in model.logger.name_to_value


class DetachedActor(ActorCriticPolicy):
    """The critic trains a layer, and the actor reads it."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.policy_net = th.nn.Sequential(Detached(self.mlp_extractor.value_net[0]), th.nn.Tanh())


class Detached(th.nn.Module):
    """Gives another module's result as a constant."""

    def __init__(self, module: th.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: th.Tensor) -> th.Tensor:
        result: th.Tensor = self.module(x).detach()
        return result


def test_an_actor_that_reads_parameters_of_the_critic_gives_a_warning() -> None:
    model = TRPO(DetachedActor, RandomEnv(), **SMALL)
    with pytest.warns(UserWarning, match=r"critic's fit has moved the action distribution.*detach"):
        model.learn(64)


def test_frozen_parameters_stay_frozen() -> None:
    model = make_model("box actions")
    frozen = [model.policy.log_std, *model.policy.mlp_extractor.policy_net[0].parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen]
    model.learn(64 * 2)
    assert all(th.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert model.last_step is not None
    assert model.last_step.accepted


def test_a_frozen_actor_takes_no_step() -> None:
    model = make_model("box actions")
    for name, parameter in model.policy.named_parameters():
        parameter.requires_grad_("value_net" in name)
    model.learn(64)
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.NO_PARAMETERS


def test_a_layer_called_value_that_feeds_the_actor_is_the_actors() -> None:
    model = make_model("custom policy and distribution").learn(64)
    before = model.policy.value_encoder.weight.detach().clone()  # type: ignore[union-attr,operator]
    batch = batch_of(model)
    assert any(p is model.policy.value_encoder.weight for p in reached(model.policy, batch))  # type: ignore[union-attr]
    model.learn(64, reset_num_timesteps=False)
    assert not th.equal(model.policy.value_encoder.weight, before)  # type: ignore[union-attr,arg-type]


def test_target_kl_follows_its_schedule_down_to_no_step() -> None:
    model = make_model("box actions", target_kl="lin_0.02")
    kls: list[float] = []

    def look(*_: object) -> bool:
        kls.append(model.last_step.kl if model.last_step else 0.0)
        return True

    model.learn(64 * 4, callback=look)
    per_update = kls[32::32]
    assert per_update[0] <= 0.02 * 0.75
    assert per_update[2] <= 0.02 * 0.25
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.NO_TRUST_REGION


def test_target_kl_can_be_changed_between_updates() -> None:
    model = make_model("box actions").learn(64)
    model.target_kl = 1e-5
    model.learn(64, reset_num_timesteps=False)
    assert model.last_step is not None
    assert 0.0 < model.last_step.kl <= 1e-5


def test_no_schedule_sees_a_negative_progress() -> None:
    seen: list[float] = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 1e-3

    make_model("box actions", learning_rate=schedule).learn(65)  # two rollouts of 64 steps
    assert min(seen) == 0.0


def test_a_schedule_that_turns_negative_is_refused_by_name() -> None:
    model = make_model("box actions", target_kl=lambda progress: progress - 0.6)
    with pytest.raises(ValueError, match="schedule `target_kl` must give finite numbers >= 0"):
        model.learn(64 * 4)


@pytest.mark.parametrize("case", ["box actions", "images", "gSDE", "part of the Fisher matrix"])
def test_same_seed_same_bits(case: str) -> None:
    runs = [th.nn.utils.parameters_to_vector(make_model(case).learn(64 * 3).policy.parameters()) for _ in range(2)]
    assert th.equal(*runs)


@pytest.mark.parametrize("case", ["box actions", "part of the Fisher matrix", "chunks"])
def test_the_policy_step_draws_no_random_number(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(case)
    step = trust_region_step

    def watched(*args: Any) -> StepReport:
        before = random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002
        report = step(*args)
        after = random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002
        assert before == after
        return report

    monkeypatch.setattr(TRPO, "step_rule", staticmethod(watched))
    model.learn(64 * 2)
    assert model._n_updates == 2


def test_first_step_is_sb3_contribs_with_its_kl_times_the_dimensions() -> None:
    steps: list[th.Tensor] = []
    buffers: dict[str, Any] = {}
    for cls, factor in ((TRPO, 2.0), (sb3_contrib.TRPO, 1.0)):
        env = RandomEnv()
        settings = {**SMALL, "n_steps": 256, "cg_max_steps": 40, "target_kl": 0.001 * factor, "cg_damping": 0.1 * factor}
        if cls is TRPO:
            settings["cg_tol"] = 1e-6
            settings |= {"normalize_observations": False, "policy_kwargs": {"log_std_init": 0.0}}
        model: Any = cls("MlpPolicy", env, n_critic_updates=0, **settings)
        _, callback = model._setup_learn(256)
        callback.on_training_start({}, {})
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 256)
        model.rollout_buffer = buffers.setdefault("first", model.rollout_buffer)  # the same rollout for both
        before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
        model.train() if cls is TRPO else _train_without_critic(model)
        steps.append(th.nn.utils.parameters_to_vector(model.policy.parameters()).detach() - before)
    ours, theirs = steps
    cosine = th.nn.functional.cosine_similarity(ours, theirs, dim=0).item()
    assert cosine > 0.999
    # ours is scaled without the damping, so longer, then shortened by the line search
    assert 0.5 < (ours.norm() / theirs.norm()).item() < 2.0


def _train_without_critic(model: Any) -> None:
    with pytest.warns(RuntimeWarning):  # sb3-contrib takes the mean of no critic losses
        model.train()


LOG_KEYS = {
    "time/update_seconds",
    "train/cg_iterations",
    "train/cg_residual",
    "train/entropy",
    "train/expected_gain",
    "train/explained_variance",
    "train/is_line_search_success",
    "train/kl_divergence_loss",
    "train/learning_rate",
    "train/line_search_steps",
    "train/n_updates",
    "train/policy_objective",
    "train/std",
    "train/step_fraction",
    "train/surrogate_gain",
    "train/value_loss",
}


def test_log_has_sb3_contribs_keys_and_the_new_ones() -> None:
    ours, theirs = (cls("MlpPolicy", RandomEnv(), **SMALL).learn(64) for cls in (TRPO, sb3_contrib.TRPO))
    assert theirs.logger.name_to_value.keys() <= ours.logger.name_to_value.keys()
    assert ours.logger.name_to_value.keys() >= LOG_KEYS
    assert all(np.isfinite(ours.logger.name_to_value[key]) for key in LOG_KEYS)


def test_log_says_why_there_was_no_step() -> None:
    model = TRPO("MlpPolicy", ConstantEnv(), **SMALL).learn(64)
    logged: dict[str, Any] = model.logger.name_to_value
    assert logged["train/outcome"] == Outcome.ZERO_SIGNAL.value
    assert model.logger.name_to_value["train/kl_divergence_loss"] == 0.0


def test_log_does_not_keep_the_reason_of_an_update_before() -> None:
    model = TRPO("MlpPolicy", ConstantEnv(), **SMALL)
    outcomes: list[bool] = []

    def look(*_: object) -> bool:
        if model.num_timesteps == 65:  # the first update had no signal; from here on the entropy gives one
            outcomes.append("train/outcome" in model.logger.name_to_value)
            model.ent_coef = 0.01
        return True

    model.learn(64 * 2, callback=look, log_interval=1000)
    assert outcomes == [True]
    assert model.last_step is not None
    assert model.last_step.accepted
    assert "train/outcome" not in model.logger.name_to_value


def test_logged_kl_and_gain_are_the_steps(tmp_path: Path) -> None:
    model = make_model("box actions")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(64 * 3)
    model.logger.close()
    values, step = model.logger.name_to_value, model.last_step
    assert step is not None
    assert values["train/kl_divergence_loss"] == step.kl
    assert values["train/policy_objective"] == step.surrogate
    assert values["train/surrogate_gain"] == step.surrogate_gain > 0.0


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("progress_bar", [False, True])
def test_learn_takes_a_float(progress_bar: bool) -> None:
    assert TRPO("MlpPolicy", RandomEnv(), **SMALL).learn(1.28e2, progress_bar=progress_bar).num_timesteps == 128


def test_a_second_learn_continues_to_count() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL).learn(128)
    model.learn(64, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (192, 3)
    model.learn(64)
    assert model.num_timesteps == 64


@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_vec_envs(vec_env: Callable[..., Any]) -> None:
    env = VecNormalize(vec_env([RandomEnv, RandomEnv]))
    model = TRPO("MlpPolicy", env, **SMALL).learn(128 * 2)
    assert model.num_timesteps == 256
    assert np.isfinite(env.obs_rms.mean).all()  # type: ignore[attr-defined]
    env.close()


def test_eval_callback_reports(tmp_path: Path) -> None:
    callback = EvalCallback(make_vec_env(RandomEnv), eval_freq=64, n_eval_episodes=2, log_path=str(tmp_path), verbose=0)
    TRPO("MlpPolicy", make_vec_env(RandomEnv), **SMALL).learn(192, callback=callback)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [64, 128, 192]


def test_update_that_is_interrupted_leaves_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("box actions").learn(64)
    actor, _ = actor_and_critic(model)
    calls = 0

    class Interrupted(PolicyProblem):
        def evaluate(self, max_kl: float = np.inf) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            return super().evaluate(max_kl)

    monkeypatch.setattr(trpo_module, "PolicyProblem", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(64, reset_num_timesteps=False)
    assert calls == 2
    assert th.equal(actor_and_critic(model)[0], actor)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:You are trying to run TRPO on the GPU")
def test_gpu_acts_on_the_cpu_copy_and_updates_on_the_gpu() -> None:
    model = make_model("box actions", device="cuda")
    assert why_not_fast(model) is None
    model.learn(64 * 3)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert all(parameter.is_cuda for parameter in model.policy.parameters())

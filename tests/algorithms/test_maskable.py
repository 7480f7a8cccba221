"""MaskableTRPO never takes a forbidden action, and without forbidden ones it is TRPO, bit for bit."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import torch as th
from gymnasium import spaces
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.policies import (
    MaskableActorCriticCnnPolicy,
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecNormalize

from sb3_trpo import SB3_CONTRIB_DEFAULTS, TRPO, MaskableTRPO
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.choose import actor_network, plain_policy
from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.distributions.action_masks import MaskLayout
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.policies import MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.flat import flatten
from sb3_trpo.step.report import Outcome
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import (
    OwnBuffer,
    actor_parameters,
    batch_of,
    collect,
    jacobian,
    make_policy,
    matrix_of,
    perturb,
    why_not_fast,
)
from tests.masked_envs import SPACES, MaskedEnv
from tests.toy_envs import ACTIONS, OBSERVATIONS, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "seed": 0, "device": "cpu", "n_critic_updates": 2}
POLICIES = {"dict": "MultiInputPolicy", "image": "CnnPolicy"}


def model_of(env: Any, policy: Any = "MlpPolicy", **kwargs: Any) -> MaskableTRPO:
    settings = {**SMALL, **kwargs}
    settings["batch_size"] = min(settings["batch_size"], settings["n_steps"])
    return MaskableTRPO(policy, env, **settings)


def same_weights(*models: TRPO) -> bool:
    first, *others = [model.policy.state_dict() for model in models]
    return all(th.equal(value, other[name]) for other in others for name, value in first.items())


def score(model: Any, env: Any, use_masking: bool = True) -> float:
    """The mean return, as sb3-contrib computes it."""
    mean, _ = evaluate_policy(model, env, n_eval_episodes=20, warn=False, use_masking=use_masking)
    assert isinstance(mean, float)
    return mean


class Unrestricted(RandomEnv):
    """Allows everything."""

    def action_masks(self) -> np.ndarray:
        return np.ones(MaskLayout.of(self.action_space).size, dtype=bool)


# --- the same as without masks ---


@pytest.mark.parametrize(
    ("observations", "actions"),
    [*(("vector", actions) for actions in SPACES), ("discrete", "discrete"), ("dict", "multi_binary"), ("image", "discrete")],
)
def test_masks_that_allow_everything_change_no_bit(observations: str, actions: str) -> None:
    env = partial(Unrestricted, OBSERVATIONS[observations], ACTIONS[actions])
    policy, settings = POLICIES.get(observations, "MlpPolicy"), {**SMALL, "n_steps": 32, "batch_size": 16, "ent_coef": 1e-3}
    with_masks, without = (cls(policy, env(), **settings).learn(96) for cls in (MaskableTRPO, TRPO))
    assert with_masks.interface.mask_source is not None
    assert with_masks.last_step == without.last_step
    assert with_masks.last_step is not None
    assert with_masks.last_step.accepted
    assert same_weights(with_masks, without)


def test_without_masking_it_is_trpo() -> None:
    env = partial(RandomEnv, action_space=ACTIONS["discrete"])
    model = model_of(env())
    with pytest.raises(ValueError, match="there are no action masks"):
        model.learn(64)
    model = model_of(env()).learn(128, use_masking=False)
    assert same_weights(model, TRPO("MlpPolicy", env(), **SMALL).learn(128))
    assert not model.trained_with_masks
    with pytest.raises(ValueError, match="`use_masking` must be True or False, not 'yes'"):
        model.learn(64, use_masking="yes")  # type: ignore[arg-type]


# --- forbidden actions are never taken, and do not matter ---


@pytest.mark.parametrize("actions", SPACES)
@pytest.mark.parametrize("where", ["env_method", "info", "observation"])
def test_it_learns_where_the_environment_refuses_forbidden_actions(where: str, actions: str) -> None:
    env = DummyVecEnv([partial(MaskedEnv, ACTIONS[actions], where, truncate=True)] * 2)
    policy = "MultiInputPolicy" if where == "observation" else "MlpPolicy"
    model = model_of(env, policy, sub_sampling_factor=2, chunk_size=24, ent_coef=1e-3)
    assert (why_not_fast(model) is None) is (where != "observation")
    kls = []
    for _ in range(3):
        model.learn(128, reset_num_timesteps=False)
        assert model.last_step is not None
        kls.append(model.last_step.kl)
    assert 0.0 < max(kls) <= 0.03
    batch = batch_of(collect(model))
    masks = batch.states.action_masks
    assert masks is not None
    assert masks.dtype == th.bool
    assert 0 < (~masks).sum() < masks.numel()
    network = actor_network(model.interface, plain_policy(model.interface))
    for actor in (network, AutogradActor(model.interface)):  # the update sees the policy that acted, masks included
        th.testing.assert_close(actor.distribution(batch.states).log_prob(batch.actions), batch.old_log_prob)
    assert batch.old_log_prob.isfinite().all()


@pytest.mark.parametrize("network", ["by hand", "autograd"])
def test_the_logits_of_forbidden_actions_do_not_matter(network: str) -> None:
    class HalfForbidden(MaskedEnv):
        def _draw_mask(self) -> None:
            self.mask = np.array([True, False, True, False])

    model = collect(model_of(HalfForbidden(spaces.Discrete(4))))
    perturb(model.policy.parameters(), 0.3)
    batch, parameters = batch_of(model), actor_parameters(model.policy)
    results = []
    for shift in (0.0, 1e3):
        with th.no_grad():
            last: Any = model.policy.action_net
            last.bias[[1, 3]] += shift
        plain = plain_policy(model.interface)
        actor = actor_network(model.interface, plain) if network == "by hand" else AutogradActor(model.interface)
        assert not isinstance(plain, Reason)
        surrogate = Surrogate(actor, batch, 0.01, 64)
        gradient = surrogate.gradient(parameters)
        product = FisherVectorProduct(actor, parameters, batch, 64)(th.ones_like(gradient))
        results.append((gradient, product, surrogate.at_old))
    assert th.equal(results[0][0], results[1][0])
    assert th.equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]
    of_bias = results[0][0][-4:], results[0][1][-4:]
    assert [part[[1, 3]].tolist() for part in of_bias] == [[0.0, 0.0]] * 2
    assert all(part[[0, 2]].abs().min() > 0.0 for part in of_bias)


@pytest.mark.parametrize("actions", SPACES)
def test_fisher_products_are_those_of_the_hessian(actions: str) -> None:
    space, n_states = ACTIONS[actions], 6
    policy = make_policy(space, net_arch=[3])
    layout, generator = MaskLayout.of(space), np.random.default_rng(0)
    masks = generator.random((n_states, layout.size)) < 0.4
    for i in range(n_states):
        masks[i, layout.starts + generator.integers(layout.sizes)] = True
    states = States(th.randn(n_states, 3), action_masks=th.from_numpy(masks))
    interface, parameters = PolicyInterface(policy), actor_parameters(policy)
    distribution = interface.distribution(states)
    family = distribution_family(distribution)
    outputs = family.parameters(distribution, th.empty(0))
    kl = family.kl_old_new(tuple(part.detach() for part in outputs), outputs).mean()
    gradient = th.cat([part.flatten() for part in th.autograd.grad(kl, parameters, create_graph=True)])
    expected = jacobian(gradient, parameters)
    actions_taken, zeros = distribution.sample(), th.zeros(n_states, dtype=th.float64)
    batch = Batch(states, actions_taken, zeros, zeros, zeros)
    product = FisherVectorProduct(AutogradActor(interface), parameters, batch, 4)
    th.testing.assert_close(matrix_of(product, len(gradient)), expected.detach(), atol=1e-9, rtol=1e-6)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("actions", SPACES)
def test_where_every_action_is_forced_nothing_moves(actions: str) -> None:
    model = model_of(MaskedEnv(ACTIONS[actions], share=0.0), ent_coef=0.01)
    before = flatten(actor_parameters(model.policy)).clone()
    model.learn(64)
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.ZERO_GRADIENT
    assert th.equal(before, flatten(actor_parameters(model.policy)))
    logged = model.logger.name_to_value
    assert (logged["train/forced_fraction"], logged["train/entropy"]) == (1.0, 0.0)


def test_forced_states_are_counted() -> None:
    class SometimesForced(MaskedEnv):
        def _draw_mask(self) -> None:
            self.mask = np.array([True, self.steps % 4 != 0, False])

    model = model_of(SometimesForced(length=1_000)).learn(64)
    assert model.logger.name_to_value["train/forced_fraction"] == pytest.approx(0.25, abs=0.02)


def test_timeouts_are_bootstrapped() -> None:
    env = MaskedEnv(truncate=True, length=4)
    model = model_of(env, gamma=0.5)
    with th.no_grad():
        for name, parameter in model.policy.named_parameters():
            if "value_net" in name:
                parameter.zero_()
        model.policy.value_net.bias.fill_(100.0)
    rewards = collect(model).rollout_buffer.rewards[:, 0]
    assert (rewards[3::4] > 40.0).all()
    assert (np.delete(rewards, np.s_[3::4]) < 10.0).all()


# --- masks that are wrong ---


@pytest.mark.parametrize("policy", ["by hand", "autograd"])
def test_a_mask_that_changes_before_the_step_is_named(policy: str) -> None:
    class Fickle(MaskedEnv):
        def step(self, action: Any) -> Any:
            if self.steps == 2:
                self.mask = np.ones(3, dtype=bool)
                self.mask[int(action)] = False
            return super().step(action)

    def everything() -> np.ndarray:
        return np.ones(3, dtype=bool)

    class Frozen(Unrestricted):
        def __init__(self) -> None:
            super().__init__(action_space=spaces.Discrete(3))

    env = DummyVecEnv([lambda: MaskedEnv(), lambda: Fickle()])
    model = model_of(env, "MlpPolicy" if policy == "by hand" else MaskableActorCriticPolicy)
    message = (
        r"The action mask of environment 1 at step 2 of the rollout allowed the action \d, and in the step the environment"
    )
    with pytest.raises(ValueError, match=message):
        model.learn(128)
    other = DummyVecEnv([Frozen])
    other.envs[0].step = lambda action: 1 / 0  # type: ignore[method-assign, return-value, assignment]
    with pytest.raises(ZeroDivisionError):  # which has nothing to do with masks
        model_of(other).learn(64)


@pytest.mark.parametrize("where", ["by hand", "autograd"])
def test_an_action_that_is_changed_to_a_forbidden_one_is_not_learned_from(where: str) -> None:
    class Meddles(BaseCallback):
        def _on_step(self) -> bool:
            masks, actions = self.locals["action_masks"], self.locals["actions"]
            if self.locals["n_steps"] == 5:
                actions[0] = np.flatnonzero(~masks[0])[0]
            return True

    model = model_of(MaskedEnv(spaces.Discrete(6)), "MlpPolicy" if where == "by hand" else MaskableActorCriticPolicy)
    with pytest.raises(ValueError, match=r"of environment 0 at step 5 of the rollout is masked"):
        model.learn(64, callback=Meddles())


def test_a_policy_that_ignores_masks_is_refused() -> None:
    class Stubborn(ActorCriticPolicy):
        def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
            from stable_baselines3.common.distributions import CategoricalDistribution

            return CategoricalDistribution(30).proba_distribution(self.action_net(latent_pi))

    class Lenient(MaskedEnv):
        def step(self, action: Any) -> Any:
            self.mask[:] = True
            return super().step(action)

    for env in (Lenient(spaces.Discrete(30)), MaskedEnv(spaces.Discrete(30))):  # the second refuses the action
        model = model_of(env, Stubborn)
        with pytest.raises(ValueError, match="of the rollout is masked"):
            model.learn(64)
    states = States(th.zeros(1, 3), action_masks=th.ones(1, 30, dtype=th.bool))
    with pytest.raises(ValueError, match=r"needs? a policy that draws its actions from its `action_dist`"):
        model.interface.distribution(states)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`mask_source` must be 'auto' or one of 'vec_env'.*not 'infos'"):
        model_of(MaskedEnv(), mask_source="infos")
    with pytest.raises(TypeError, match="no argument 'mask_sources'; did you mean 'mask_source'"):
        model_of(MaskedEnv(), mask_sources="info")
    with pytest.raises(AssertionError, match="The algorithm only supports"):
        model_of(RandomEnv())
    with pytest.raises(ValueError, match="gSDE"):
        model_of(MaskedEnv(), use_sde=True)
    with pytest.raises(TypeError, match="it takes action masks: use MaskableTRPO"):
        TRPO(MaskableActorCriticPolicy, MaskedEnv(), **SMALL)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="recurrent"):
        model_of(MaskedEnv(), sb3_contrib.RecurrentPPO.policy_aliases["MlpLstmPolicy"])


def test_masks_count_towards_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 1_000)  # a million bytes
    env = MaskedEnv(spaces.Discrete(5_000))
    with pytest.raises(ValueError, match=r"observations of 12 bytes and action masks of 5,000 bytes need"):
        model_of(env, n_steps=256)
    model_of(env, n_steps=128)
    TRPO("MlpPolicy", env, **{**SMALL, "n_steps": 256})


# --- sources, buffers, policies and environments that users have ---


def test_a_rollout_continues_with_the_masks_of_its_last_state() -> None:
    model = model_of(MaskedEnv(where="info", length=50)).learn(64)
    source = model._masks
    model.learn(64, reset_num_timesteps=False)  # no reset: the environment would refuse masks of another state
    assert model._masks is source
    model.learn(64)
    assert model._masks is source
    model.set_env(MaskedEnv(where="info"))
    model.learn(64)
    assert model._masks is not source
    model.mask_source = "env_method"
    with pytest.raises(ValueError, match="there are no action masks"):
        model.learn(64)


def test_a_rollout_without_learn_has_masks_too() -> None:
    model, like = model_of(MaskedEnv()), model_of(MaskedEnv(where="info"))
    for one in (model, like):
        _, callback = one._setup_learn(64)
        one._masks = None
        callback.on_training_start({}, {})
        assert one.env is not None
        assert one.collect_rollouts(one.env, callback, one.rollout_buffer, one.n_steps)
        assert one.interface.mask_source is not None


def test_masking_may_begin_later() -> None:
    class Lenient(MaskedEnv):
        def step(self, action: Any) -> Any:
            self.mask[:] = True
            return super().step(action)

    model = model_of(Lenient(where="info", length=1_000)).learn(64, use_masking=False)
    assert model._last_obs is not None
    model.learn(64, reset_num_timesteps=False)
    assert model.trained_with_masks


@pytest.mark.parametrize(("observations", "actions"), [*(("vector", actions) for actions in SPACES), ("dict", "multi_binary")])
def test_sb3_contribs_buffers_and_policies(observations: str, actions: str) -> None:
    class Both(MaskedEnv):
        def __init__(self) -> None:
            super().__init__(ACTIONS[actions], observation_space=OBSERVATIONS[observations])

    buffer = MaskableDictRolloutBuffer if observations == "dict" else MaskableRolloutBuffer
    theirs: Any = MaskableMultiInputActorCriticPolicy if observations == "dict" else MaskableActorCriticPolicy
    for policy, buffer_class in ((POLICIES.get(observations, "MlpPolicy"), buffer), (theirs, None), (theirs, buffer)):
        model = model_of(Both(), policy, rollout_buffer_class=buffer_class, n_steps=32).learn(64)
        assert model.last_step is not None
        assert model.last_step.accepted
        assert model.logger.name_to_value["train/forced_fraction"] < 1.0


def test_a_buffer_whose_samples_have_no_masks_is_refused() -> None:
    model = model_of(MaskedEnv(), rollout_buffer_class=OwnBuffer)
    with pytest.raises(
        ValueError, match=r"custom `get` must give `action_masks` with its samples; .*RolloutBufferSamples has none"
    ):
        model.learn(64)


def test_a_callback_that_reads_the_buffer_does_not_disorder_the_masks() -> None:
    class Reads(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            next(iter(self.locals["rollout_buffer"].get(None)))

    env = partial(DummyVecEnv, [MaskedEnv, MaskedEnv, MaskedEnv])
    state = np.random.get_state()  # noqa: NPY002
    models = []
    for callback in (None, Reads()):
        np.random.set_state(state)  # noqa: NPY002
        model = model_of(env(), n_critic_updates=0).learn(192, callback=callback)
        models.append(model)
    assert models[0].last_step is not None
    assert models[1].last_step is not None
    assert models[0].last_step.kl == pytest.approx(models[1].last_step.kl, rel=1e-4)
    assert models[0].last_step.accepted


def test_other_features_work_with_masks() -> None:
    env = VecNormalize(DummyVecEnv([partial(MaskedEnv, spaces.Discrete(6))] * 2))
    model = model_of(
        env,
        target_kl=lambda progress: 0.01 + 0.01 * progress,
        learning_rate="lin_0.001",
        fisher_sample_fraction=0.5,
        normalize_observations=True,
        normalize_returns=True,
        n_steps=128,
    ).learn(512)
    assert model.last_step is not None
    assert model.last_step.accepted
    assert 0.0 < model.last_step.kl <= 0.02


def test_other_processes() -> None:
    env = SubprocVecEnv([MaskedEnv, MaskedEnv], start_method="fork")
    try:
        model = model_of(env).learn(128)
    finally:
        env.close()
    assert model.last_step is not None
    assert model.last_step.accepted


def test_images() -> None:
    model = model_of(MaskedEnv(observation_space=OBSERVATIONS["image"]), "CnnPolicy", n_steps=32).learn(64)
    assert type(model.policy) is MaskableCnnPolicy
    assert model.interface.mask_source is not None


def test_a_callback_may_replace_the_policy_in_a_rollout() -> None:
    class Replaces(BaseCallback):
        def _on_step(self) -> bool:
            if self.locals["n_steps"] == 20:
                other = model_of(MaskedEnv())
                self.model.policy = other.policy
            return True

    model = model_of(MaskedEnv()).learn(64, callback=Replaces())  # the environment would refuse forbidden actions
    assert model.interface.mask_source is not None


# --- using a trained model ---


def test_predictions_are_restricted() -> None:
    model = model_of(MaskedEnv(spaces.Discrete(5))).learn(64)
    observations = np.zeros((200, 3), dtype=np.float32)
    masks = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 1]] * 100)
    for deterministic in (True, False):
        actions, _ = model.predict(observations, deterministic=deterministic, action_masks=masks)
        assert set(actions[::2].tolist()) <= {1, 3}
        assert set(actions[1::2].tolist()) == {4}
        assert model.predict(observations[0], deterministic=deterministic, action_masks=[0, 0, 1, 0, 0])[0] == 2
    assert len({model.predict(observations[0], action_masks=masks[0])[0].item() for _ in range(50)}) == 2
    for bad, message in (([1, 0], "shape"), ([0] * 5, "allows no value"), ([2, 1, 0, 0, 0], "values 0 and 1"), (3, "shape")):
        with pytest.raises(ValueError, match=f"`action_masks` of observation 0.*{message}"):
            model.predict(observations[0], action_masks=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one action mask for each of the 200 observations, not 1"):
        model.predict(observations, action_masks=masks[0])


def test_a_prediction_without_masks_is_warned_of_once() -> None:
    model = model_of(MaskedEnv(), n_steps=64)
    observation = np.zeros(3, dtype=np.float32)
    model.predict(observation)  # not trained yet
    model.learn(64)
    with pytest.warns(UserWarning, match="`predict` was called without `action_masks`"):
        model.predict(observation)
    model.predict(observation)


def test_sb3_contrib_evaluates_it(tmp_path: Path) -> None:
    model = model_of(MaskedEnv())
    callback = MaskableEvalCallback(Monitor(MaskedEnv()), eval_freq=64, best_model_save_path=str(tmp_path), verbose=0)
    model.learn(128, callback=callback)
    assert np.isfinite(score(model, Monitor(MaskedEnv())))
    best = MaskableTRPO.load(tmp_path / "best_model")
    with pytest.warns(UserWarning, match="without `action_masks`"):
        best.predict(np.zeros(3, dtype=np.float32))


def test_a_random_model_succeeds_where_the_masks_leave_the_right_action() -> None:
    env = InvalidActionEnvDiscrete(dim=20, n_invalid_actions=19)
    model = model_of(env)
    assert score(model, env) > 99.0
    assert score(model, env, use_masking=False) < 50.0


def test_it_learns_the_identity_in_one_rollout() -> None:
    env = InvalidActionEnvDiscrete(dim=70, n_invalid_actions=55)
    settings: dict[str, Any] = {"target_kl": 1.0, "cg_damping": 1e-3, "line_search_max_iter": 20, "gamma": 0.1, "seed": 32}
    model = MaskableTRPO("MlpPolicy", env, **{**SB3_CONTRIB_DEFAULTS, **settings}).learn(2048)
    assert score(model, env) > 80.0


# --- saving, and continuing from other models ---


@pytest.mark.parametrize("policy", ["MlpPolicy", MaskableActorCriticPolicy, ActorCriticPolicy])
def test_saved_models(policy: Any, tmp_path: Path) -> None:
    model = model_of(MaskedEnv(where="info"), policy, mask_source="info").learn(64)
    model.save(tmp_path / "model")
    loaded = MaskableTRPO.load(tmp_path / "model", MaskedEnv(where="info"))
    assert same_weights(model, loaded)
    assert (type(loaded.policy), loaded.mask_source, loaded.trained_with_masks) == (type(model.policy), "info", True)
    loaded.learn(64)
    assert MaskableTRPO.load(tmp_path / "model", mask_source="auto").mask_source == "auto"


@pytest.mark.parametrize(
    ("observations", "actions", "as_file"),
    [
        *(("vector", actions, as_file) for actions in SPACES for as_file in (True, False)),
        ("dict", "multi_discrete", True),
        ("image", "discrete", False),
    ],
)
def test_maskable_ppo_is_continued(observations: str, actions: str, as_file: bool, tmp_path: Path) -> None:
    env = partial(MaskedEnv, ACTIONS[actions], observation_space=OBSERVATIONS[observations])
    policy = POLICIES.get(observations, "MlpPolicy")
    theirs = sb3_contrib.MaskablePPO(policy, env(), n_steps=32, batch_size=32, seed=0).learn(32)
    theirs.save(tmp_path / "ppo")
    ours = MaskableTRPO.from_ppo(tmp_path / "ppo" if as_file else theirs, env(), batch_size=32)
    own = {"vector": MaskableMlpPolicy, "dict": MaskableMultiInputPolicy, "image": MaskableCnnPolicy}[observations]
    policy_class: type[Any] = type(ours.policy)
    assert policy_class is (type(theirs.policy) if actions == "multi_binary" else own)
    assert ours.num_timesteps == 32
    masks = np.ones((5, MaskLayout.of(ACTIONS[actions]).size), dtype=bool)
    masks[:, 0] = False
    observation: Any = [ours.observation_space.sample() for _ in range(5)]
    if observations == "dict":
        observation = {key: np.stack([one[key] for one in observation]) for key in observation[0]}
    else:
        observation = np.stack(observation)
    chosen = [model.predict(observation, deterministic=True, action_masks=masks)[0] for model in (ours, theirs)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    values = [model.policy.predict_values(model.policy.obs_to_tensor(observation)[0]) for model in (ours, theirs)]
    th.testing.assert_close(*values)
    ours.learn(32)
    assert ours.last_step is not None
    assert ours.last_step.accepted


def test_other_models_are_continued_with_masks() -> None:
    class Custom(MaskableActorCriticCnnPolicy):
        pass

    ppo = PPO("MlpPolicy", RandomEnv(action_space=ACTIONS["discrete"]), n_steps=32, batch_size=32)
    model = MaskableTRPO.from_ppo(ppo, MaskedEnv(), batch_size=32).learn(32)
    assert model.trained_with_masks
    again = MaskableTRPO.from_ppo(model_of(MaskedEnv(where="info"), mask_source="info"))
    assert again.mask_source == "info"
    theirs = sb3_contrib.MaskablePPO(
        Custom, MaskedEnv(observation_space=OBSERVATIONS["image"]), n_steps=32, batch_size=32, policy_kwargs={"net_arch": []}
    )
    policy_class: type[Any] = type(MaskableTRPO.from_ppo(theirs, batch_size=32).policy)
    assert policy_class is Custom
    with pytest.raises(ValueError, match=r"a MaskablePPO with a MaskableActorCriticPolicy; use MaskableTRPO.from_ppo"):
        TRPO.from_ppo(sb3_contrib.MaskablePPO("MlpPolicy", MaskedEnv()))


def test_taxi_has_its_masks_in_its_infos() -> None:
    env = gym.make("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3")
    model = model_of(env, n_steps=256, verbose=0).learn(512)
    assert type(model._masks).__name__ == "OfInfo"


def test_masks_are_looked_for_anew_in_environments_with_lists() -> None:
    class Lists(VecEnvWrapper):
        def reset(self) -> Any:
            return self.venv.reset().tolist()  # type: ignore[union-attr]

        def step_wait(self) -> Any:
            observations, *rest = self.venv.step_wait()
            return (observations.tolist(), *rest)  # type: ignore[union-attr]

    def trained(wrap: Any) -> MaskableTRPO:
        model = MaskableTRPO("MlpPolicy", wrap(DummyVecEnv([lambda: MaskedEnv(share=1.0)])), n_steps=32, batch_size=32, seed=0)
        model.learn(32, use_masking=False)
        return model.learn(32, reset_num_timesteps=False)

    for found, expected in zip(trained(Lists).policy.parameters(), trained(lambda env: env).policy.parameters(), strict=True):
        assert th.equal(found, expected)

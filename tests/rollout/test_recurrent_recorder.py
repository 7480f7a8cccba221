"""A rollout recorded in NumPy is the rollout that the torch policy records, memory included."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.rollout import collector
from tests.helpers import collect, perturb, why_not_fast
from tests.recurrent_helpers import KINDS, act_again, make_env, make_model
from tests.toy_envs import ACTIONS, FaultyEnv


def interface_of(model: TRPO) -> RecurrentInterface:
    assert isinstance(model.interface, RecurrentInterface)
    return model.interface


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_values_and_log_probs_are_those_of_acting_step_by_step(kind: str, truncate: bool, fast: bool) -> None:
    model = make_model(make_env(truncate=truncate), policy_kwargs=KINDS[kind])
    perturb(model.policy.parameters(), 0.3)
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(collector, "fast_policy", lambda *_: Reason("not now"))
        else:
            assert why_not_fast(model) is None
        collect(model)
        _, callback = model._setup_learn(10, None, reset_num_timesteps=False)
        assert model.env is not None
        assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)  # begins amid episodes
    buffer, interface = model.rollout_buffer, interface_of(model)
    assert any(part.any() for part in interface.first_memory)
    memory = interface.memory
    outputs, values = act_again(model)
    np.testing.assert_allclose(buffer.values, values, rtol=1e-4, atol=1e-5)
    mean, std = outputs[..., :2], outputs[..., 2:]
    noise = (th.from_numpy(buffer.actions) - mean) / std
    log_probs = -(0.5 * noise.square() + std.log() + 0.5 * np.log(2 * np.pi)).sum(dim=2)
    np.testing.assert_allclose(buffer.log_probs, log_probs, rtol=1e-4, atol=1e-5)
    assert memory[0].shape == (3, KINDS[kind].get("n_lstm_layers", 1), 5)
    assert all(part.isfinite().all() for part in memory)


def test_both_ways_record_the_same_when_they_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    for fast in (True, False):
        # a deterministic policy: the noise, which is drawn in another order, does not matter
        model = make_model(make_env(truncate=True), policy_kwargs={"log_std_init": -30.0, "n_lstm_layers": 2})
        perturb([p for name, p in model.policy.named_parameters() if name != "log_std"], 0.0)
        th.manual_seed(0)
        perturb([p for name, p in model.policy.named_parameters() if name != "log_std"], 0.3)
        if not fast:
            monkeypatch.setattr(collector, "fast_policy", lambda *_: Reason("not now"))
        models.append(collect(model))
    first, second = (model.rollout_buffer for model in models)
    for name in ("observations", "actions", "rewards", "values", "advantages", "returns", "episode_starts"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5, err_msg=name)
    for ours, theirs in zip(interface_of(models[0]).memory, interface_of(models[1]).memory, strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class Watching(BaseCallback):
    """Keeps the locals of every step, and may stop or fail at one."""

    def __init__(self, stop_at: int | None = None, error: type[Exception] | None = None) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.stop_at = stop_at
        self.error = error

    def _on_step(self) -> bool:
        names = ("lstm_states", "episode_starts", "dones", "obs_tensor", "n_steps")
        self.seen.append({name: self.locals[name] for name in names})
        if self.error is not None and len(self.seen) == self.stop_at:
            raise self.error
        return len(self.seen) != self.stop_at


def test_callbacks_find_memory_and_episode_starts() -> None:
    callback = Watching()
    model = make_model()
    collect(model, callback)
    assert [seen["episode_starts"].all() for seen in callback.seen[:9]] == [True, *[False] * 6, True, False]
    state = None
    for seen in callback.seen:
        obs = seen["obs_tensor"].numpy()
        _, state = model.policy.predict(obs, state, seen["episode_starts"])
        assert state is not None
        for part, expected in zip(seen["lstm_states"].pi, state, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-6)
        assert seen["lstm_states"].vf[0].shape == (1, 3, 5)
    assert callback.locals["lstm_states"].vf[0].isfinite().all()  # at the end of the rollout


@pytest.mark.parametrize("kind", ["lstm", "critic_without", "shared"])
@pytest.mark.parametrize("steps", [3, 7, 10])
def test_a_training_that_a_callback_stops_goes_on_where_it_was(kind: str, steps: int) -> None:
    model = make_model(policy_kwargs=KINDS[kind])
    stopping = Watching(stop_at=steps)
    model.learn(72, callback=stopping)
    last = stopping.seen[-1]["lstm_states"]
    memory = interface_of(model).memory
    assert all(part.isfinite().all() for part in memory)
    th.testing.assert_close(memory[0].transpose(0, 1), last.pi[0])
    going_on = Watching(stop_at=1)
    model.learn(72, callback=going_on, reset_num_timesteps=False)
    _, expected = model.policy.predict(
        going_on.seen[0]["obs_tensor"].numpy(),
        tuple(part.numpy() for part in last.pi),
        stopping.seen[-1]["dones"],
    )
    assert expected is not None
    np.testing.assert_allclose(going_on.seen[0]["lstm_states"].pi[0], expected[0], rtol=1e-4, atol=1e-6)
    model.learn(72)
    assert model.last_step is not None


def test_after_an_error_the_memory_begins_anew() -> None:
    model = make_model()
    with pytest.raises(ZeroDivisionError):
        model.learn(72, callback=Watching(stop_at=5, error=ZeroDivisionError))
    callback = Watching(stop_at=1)
    model.learn(72, callback=callback, reset_num_timesteps=False)
    assert callback.seen[0]["episode_starts"].all()
    _, fresh = model.policy.predict(callback.seen[0]["obs_tensor"].numpy())
    assert fresh is not None
    np.testing.assert_allclose(callback.seen[0]["lstm_states"].pi[0], fresh[0], rtol=1e-4, atol=1e-6)
    model.learn(72)


def test_numbers_that_are_not_finite_are_refused() -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = make_model(DummyVecEnv([lambda: FaultyEnv(5, observation=np.nan)]))
    with pytest.raises(ValueError, match="observation of environment 0 at step 6"):
        model.learn(24)
    model = make_model()
    with th.no_grad():
        model.policy.value_net.bias.fill_(th.nan)
    with pytest.raises(ValueError, match="The value of environment 0 at step 0"):
        model.learn(24)


@pytest.mark.parametrize("actions", ACTIONS)
def test_every_action_space(actions: str) -> None:
    model = make_model(make_env(action_space=ACTIONS[actions]))
    assert why_not_fast(model) is None
    model.learn(144)
    assert model.last_step is not None
    assert model.last_step.accepted


class Replacing(BaseCallback):
    """Replaces the policy in the middle of a rollout, by one with the same weights."""

    def _on_step(self) -> bool:
        if self.n_calls == 10:
            other = make_model().policy
            other.load_state_dict(self.model.policy.state_dict())
            self.model.policy = other
        return True


def test_a_policy_that_is_replaced_in_a_rollout_takes_the_memory_over() -> None:
    model = collect(make_model(), Replacing())
    _, values = act_again(model)
    np.testing.assert_allclose(model.rollout_buffer.values, values, rtol=1e-4, atol=1e-5)

"""The carts of the measurement are Gymnasium's, and our work per env step falls as environments are added."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import many_envs
from benchmarks.common.cart_poles import CartPoles
from sb3_trpo import TRPO


def test_the_carts_move_as_gymnasiums() -> None:
    ours = CartPoles(3, max_steps=40)
    theirs: list[Any] = [gym.make("CartPole-v1", max_episode_steps=40) for _ in range(3)]
    first = ours.reset()
    for env, state in zip(theirs, first, strict=True):
        env.reset()
        env.unwrapped.state = tuple(state.astype(float))
    rng, ends, timeouts = np.random.default_rng(0), 0, 0
    for step in range(160):
        # the first cart is held upright until its time is over
        actions = rng.integers(0, 2, 3)
        actions[0] = int(ours._states[0, 2] + 0.5 * ours._states[0, 3] > 0.0)
        stepped: Any = ours.step(actions)
        observations, rewards, dones, infos = stepped
        for i, env in enumerate(theirs):
            expected, reward, terminated, truncated, _ = env.step(int(actions[i]))
            assert (rewards[i], dones[i]) == (reward, terminated or truncated), step
            last = infos[i].get("terminal_observation", observations[i])
            np.testing.assert_allclose(last, expected, atol=1e-5)
            if dones[i]:
                assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
                ends, timeouts = ends + 1, timeouts + infos[i]["TimeLimit.truncated"]
                env.reset()
                env.unwrapped.state = tuple(observations[i].astype(float))
    assert ends > timeouts > 0


def calls_per_env_step(n_envs: int, n_steps: int) -> float:
    """The calls of Python and C functions in one rollout and its statistics, without those of the environments."""
    model = TRPO("MlpPolicy", CartPoles(n_envs, max_steps=20), n_steps=n_steps, batch_size=128, seed=0, device="cpu")
    _, callback = model._setup_learn(n_steps * n_envs)
    assert model.env is not None
    env, counted, inside = model.env, 0, 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted, inside
        if event in ("call", "return") and frame.f_code is CartPoles.step_wait.__code__:
            inside += 1 if event == "call" else -1
        counted += event in ("call", "c_call") and not inside

    sys.setprofile(count)
    try:
        model.collect_rollouts(env, callback, model.rollout_buffer, n_steps)
    finally:
        sys.setprofile(None)
    return counted / (n_steps * n_envs)


def test_our_calls_per_env_step_fall_as_environments_are_added() -> None:
    few, more, many = (calls_per_env_step(n, 8_192 // n) for n in (8, 64, 512))
    assert more < 0.4 * few
    assert many < more


def test_every_side_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(many_envs, "ENV_STEPS", 256)
    many_envs.main(["--rounds", "1", "--n-envs", "2", "4"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4
    assert all(line.count("|") == 7 for line in table)

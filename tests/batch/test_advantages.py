"""Advantages that carry a signal are distinguished from advantages that do not, at any scale."""

import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trpo.batch.advantages import carry_signal, effective_advantages, generalized_advantages

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
SCALES = [1e-20, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e14]


def noise(size: int, seed: int = 0) -> th.Tensor:
    return th.randn(size, generator=th.Generator().manual_seed(seed))


def gae(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
    """Advantages and returns of one environment as SB3's buffer computes them, ending with an episode."""
    space = spaces.Box(-1.0, 1.0, (1,))
    buffer = RolloutBuffer(len(rewards), space, space, gae_lambda=0.95, gamma=0.99)
    for reward, value, start in zip(rewards, values, starts, strict=True):
        zero = np.zeros((1, 1))
        buffer.add(zero, zero, reward, start, th.tensor([value]), th.zeros(1))
    buffer.compute_returns_and_advantage(th.zeros(1), np.ones(1))
    return th.from_numpy(buffer.advantages.flatten()), th.from_numpy(buffer.returns.flatten())


@pytest.mark.parametrize("scale", SCALES)
def test_equal_advantages_are_no_signal(scale: float) -> None:
    advantages = th.full((64,), scale)
    assert not carry_signal(advantages, advantages + 3.0 * scale)
    assert not effective_advantages(advantages, advantages, normalize=True).any()


@pytest.mark.parametrize("scale", SCALES)
def test_rounding_of_large_returns_is_no_signal(scale: float) -> None:
    # returns near `scale` are known to 1e-7 of it, so advantages of that size are left over from subtraction
    returns = scale * (1.0 + 0.1 * noise(256))
    advantages = 1e-7 * scale * noise(256, seed=1)
    assert not carry_signal(advantages, returns)


@pytest.mark.parametrize("scale", SCALES)
def test_one_step_episodes_with_equal_rewards_are_no_signal(scale: float) -> None:
    # the critic's value of the same observation differs only by the order of its sums
    values = (0.7 * scale * (1.0 + 1e-7 * noise(256).double())).float().numpy()
    advantages, returns = gae(np.full(256, scale, dtype=np.float32), values, np.ones(256))
    assert not carry_signal(advantages, returns)
    assert not effective_advantages(advantages, returns, normalize=True).any()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("relative", [1e-5, 1e-3, 1.0])
def test_small_but_genuine_signal_counts(scale: float, relative: float) -> None:
    advantages = relative * scale * noise(256)
    assert carry_signal(advantages, scale + advantages)
    assert effective_advantages(advantages, scale + advantages, normalize=True).std().item() == pytest.approx(1.0, rel=1e-3)


def test_a_single_better_action_among_many_counts() -> None:
    advantages = th.zeros(2048)
    advantages[7] = 0.1
    assert carry_signal(advantages, advantages)


@pytest.mark.parametrize("reward", [1e-3, 1.0, -1.0, 100.0])
def test_constant_reward_is_signal_where_the_length_of_the_episode_tells(reward: float) -> None:
    starts = np.zeros(64)
    starts[[0, 10, 35, 41]] = 1.0  # episodes of different length, as in CartPole
    advantages, returns = gae(np.full(64, reward, dtype=np.float32), np.zeros(64, dtype=np.float32), starts)
    assert carry_signal(advantages, returns)
    assert effective_advantages(advantages, returns, normalize=True).any()


def test_zero_advantages_are_no_signal() -> None:
    assert not carry_signal(th.zeros(8), th.zeros(8))
    assert not carry_signal(th.zeros(8), th.ones(8))
    assert not carry_signal(th.zeros(1), th.zeros(1))


@pytest.mark.parametrize(("advantage", "signal"), [(0.5, True), (-0.5, True), (1e-9, False), (0.0, False)])
def test_a_single_sample_is_judged_by_its_size(advantage: float, signal: bool) -> None:
    advantages = th.tensor([advantage])
    assert carry_signal(advantages, advantages + 1.0) is signal
    assert effective_advantages(advantages, advantages + 1.0, normalize=False).tolist() == ([advantage] if signal else [0.0])


@PROPERTY
@given(
    values=st.lists(st.floats(-1.0, 1.0, width=32), min_size=2, max_size=30),
    exponent=st.integers(-40, 40),
)
def test_the_verdict_does_not_depend_on_the_scale_of_the_rewards(values: list[float], exponent: int) -> None:
    advantages = th.tensor(values, dtype=th.float64).round(decimals=3)
    scaled = math.ldexp(1.0, exponent) * advantages  # exact
    assert carry_signal(scaled, scaled) == carry_signal(advantages, advantages)
    assert carry_signal(advantages, advantages) == (len(set(advantages.tolist())) > 1)
    for normalize, factor in ((True, 1.0), (False, math.ldexp(1.0, exponent))):
        expected = factor * effective_advantages(advantages, advantages, normalize)
        th.testing.assert_close(effective_advantages(scaled, scaled, normalize), expected, rtol=1e-9, atol=0.0)


@PROPERTY
@given(values=st.lists(st.floats(-100.0, 100.0), min_size=2, max_size=30), shift=st.floats(-10.0, 10.0))
def test_standardised_advantages_have_mean_zero_and_deviation_one(values: list[float], shift: float) -> None:
    advantages = th.tensor(values, dtype=th.float64) + shift
    result = effective_advantages(advantages, advantages, normalize=True)
    if carry_signal(advantages, advantages):
        assert result.mean().item() == pytest.approx(0.0, abs=1e-8)
        assert result.std().item() == pytest.approx(1.0, rel=1e-8)
        assert (result[advantages.argsort()].diff() >= 0.0).all()  # the order stays
    else:
        assert not result.any()


def test_advantages_stay_as_they_are_without_normalisation() -> None:
    advantages = noise(16) + 5.0
    assert th.equal(effective_advantages(advantages, advantages, normalize=False), advantages)


def test_the_buffers_advantages_are_not_written() -> None:
    advantages = noise(16)
    before = advantages.clone()
    effective_advantages(advantages, advantages, normalize=True)
    assert th.equal(advantages, before)


def test_generalized_advantages_are_sb3s() -> None:
    rng = np.random.default_rng(0)
    space = spaces.Box(-1.0, 1.0, (1,))
    buffer = RolloutBuffer(50, space, space, device="cpu", gamma=0.97, gae_lambda=0.9, n_envs=3)
    buffer.rewards[:] = rng.standard_normal((50, 3))
    buffer.values[:] = rng.standard_normal((50, 3))
    buffer.episode_starts[:] = rng.random((50, 3)) < 0.2
    last_values, dones = rng.standard_normal(3).astype(np.float32), np.array([True, False, False])
    alive = 1.0 - np.append(buffer.episode_starts[1:], dones[None], axis=0)
    deltas = buffer.rewards + 0.97 * alive * np.append(buffer.values[1:], last_values[None], axis=0) - buffer.values
    buffer.compute_returns_and_advantage(th.from_numpy(last_values), dones)
    ours = generalized_advantages(deltas, 0.97 * 0.9 * alive)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, buffer.advantages, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_envs", range(1, 71))
def test_generalized_advantages_of_any_number_of_environments(n_envs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n_envs)
    deltas = rng.normal(size=(20, n_envs)).astype(np.float32)
    decays = np.where(rng.random((20, n_envs)) < 0.2, 0.0, 0.95).astype(np.float32)
    expected = np.zeros((21, n_envs))
    for step in reversed(range(20)):
        for env in range(n_envs):
            expected[step, env] = float(deltas[step, env]) + float(decays[step, env]) * expected[step + 1, env]
    np.testing.assert_array_equal(generalized_advantages(deltas, decays), expected[:-1].astype(np.float32))
    for smallest in (0, 100):  # both ways
        monkeypatch.setattr("sb3_trpo.batch.advantages._MANY_ENVS", smallest)
        result = generalized_advantages(deltas, decays)
        np.testing.assert_array_equal(result, expected[:-1].astype(np.float32))
        assert result.dtype == np.float32

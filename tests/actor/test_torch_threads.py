"""Torch uses one thread in an update whose arithmetic NumPy does, and the number that was set everywhere else."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv
from torch import nn

from sb3_trpo import TRPO, RecurrentTRPO


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = th.get_num_threads()
    th.set_num_threads(3)
    yield
    th.set_num_threads(before)


def threads_of_update(algorithm: type[TRPO], policy: str, env: Any = "CartPole-v1", **settings: Any) -> int:
    """Learn for one update; return the number of threads in it."""
    seen = []

    class Noting(algorithm):  # type: ignore[misc, valid-type]
        def _fit_critic(self, *args: Any) -> list[float]:
            seen.append(th.get_num_threads())
            losses: list[float] = super()._fit_critic(*args)
            return losses

    Noting(policy, env, n_steps=64, batch_size=64, seed=0, device="cpu", **settings).learn(64)
    assert th.get_num_threads() == 3
    (number,) = seen
    return number


def test_a_plain_policy_learns_in_one() -> None:
    assert threads_of_update(TRPO, "MlpPolicy") == 1


def test_a_plain_policy_with_memory_learns_in_one() -> None:
    assert threads_of_update(RecurrentTRPO, "MlpLstmPolicy", policy_kwargs={"lstm_hidden_size": 4}) == 1


def test_autograd_keeps_its_threads() -> None:
    assert threads_of_update(TRPO, "MlpPolicy", policy_kwargs={"activation_fn": nn.CELU}) == 3


def test_convolutions_keep_their_threads() -> None:
    assert threads_of_update(TRPO, "CnnPolicy", FakeImageEnv(36, 36, discrete=True)) == 3


def test_an_update_that_fails_gives_them_back() -> None:
    class Failing(TRPO):
        def _fit_critic(self, *args: Any) -> list[float]:
            raise RuntimeError(f"stopped by the test with {th.get_num_threads()}")

    with pytest.raises(RuntimeError, match="stopped by the test with 1"):
        Failing("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, device="cpu").learn(64)
    assert th.get_num_threads() == 3

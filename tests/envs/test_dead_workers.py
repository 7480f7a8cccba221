"""A worker that ends is named, and nothing waits for it."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from sb3_trpo import TRPO
from tests.toy_envs import RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0, "device": "cpu"}


class MortalEnv(RandomEnv):
    """
    Ends its process.

    :param at: step at which it does; 0: at a reset; -1: never
    :param how: how it does
    """

    def __init__(self, at: int = -1, how: str = "exit") -> None:
        super().__init__()
        self.at, self.how, self.taken = at, how, 0

    def reset(self, **kwargs: Any) -> Any:
        if self.at == 0:
            self.end()
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.taken += 1
        if self.taken == self.at:
            self.end()
        return super().step(action)

    def end(self) -> None:
        if self.how == "exit":
            os._exit(3)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "leave":
            sys.exit(0)
        raise ZeroDivisionError("in the worker")


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 120.0


def workers(*at: int, how: str = "exit", start_method: str | None = None) -> SubprocVecEnv:
    return SubprocVecEnv([partial(MortalEnv, when, how) for when in at], start_method)


@pytest.mark.parametrize(
    ("how", "code"), [("exit", "3"), ("kill", r"-9 \(killed by SIGKILL\)"), ("raise", "1"), ("leave", "0")]
)
def test_the_worker_and_its_exit_code_are_named(how: str, code: str) -> None:
    env = workers(-1, 20, how=how)
    model = TRPO("MlpPolicy", VecNormalize(VecMonitor(env)), **SMALL)
    with pytest.raises(RuntimeError, match=rf"^worker 1 of the SubprocVecEnv ended with exit code {code}; ") as error:
        model.learn(200)
    assert isinstance(error.value.__cause__, EOFError | OSError)
    assert model.num_timesteps == 38
    assert model._n_updates == 1
    assert not any(process.is_alive() for process in env.processes)
    env.close()
    if how != "leave":
        with pytest.raises(RuntimeError, match=rf"worker 1 of the SubprocVecEnv ended with exit code {code}; "):
            model.learn(200)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("dead", [0, 2])
def test_forked_workers_do_not_wait_for_each_other(dead: int, how: str) -> None:
    env = workers(*(20 if i == dead else -1 for i in range(3)), how=how, start_method="fork")
    pipes = env.remotes
    with pytest.raises(RuntimeError, match=rf"^worker {dead} of the SubprocVecEnv ended"):
        TRPO("MlpPolicy", env, **SMALL).learn(200)
    assert env.remotes is pipes
    assert not any(process.is_alive() for process in env.processes)


def test_a_reset_names_the_worker() -> None:
    model = TRPO("MlpPolicy", workers(-1, 0), **SMALL)
    with pytest.raises(RuntimeError, match="worker 1 of the SubprocVecEnv ended with exit code 3"):
        model.learn(32)


def test_workers_of_an_evaluation_are_named(tmp_path: Path) -> None:
    evaluated = workers(5)
    callback = EvalCallback(VecMonitor(evaluated), eval_freq=8, n_eval_episodes=2)
    model = TRPO("MlpPolicy", VecMonitor(workers(-1, -1)), **SMALL)
    with pytest.raises(RuntimeError, match="worker 0 of the SubprocVecEnv ended with exit code 3"):
        model.learn(64, callback)
    training = model.get_env()
    assert training is not None
    training.reset()
    training.close()


def test_other_errors_are_as_they_were(tmp_path: Path) -> None:
    class Broken(RandomEnv):
        def step(self, action: Any) -> Any:
            raise ConnectionResetError("the simulator's")

    with pytest.raises(ConnectionResetError, match="the simulator's"):
        TRPO("MlpPolicy", DummyVecEnv([lambda: Monitor(Broken())]), **SMALL).learn(32)
    env = workers(-1)
    model = TRPO("MlpPolicy", env, **SMALL)
    env.close()
    with pytest.raises(OSError, match=re.compile("closed|broken pipe", re.IGNORECASE)):
        model.learn(32)

"""NumPy's matrix products run in one thread while a model learns."""

from collections.abc import Iterator
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from threadpoolctl import ThreadpoolController

from sb3_trpo import TRPO
from sb3_trpo.actor.numpy_threads import numpy_in_one_thread

OPENBLAS = ThreadpoolController().select(internal_api="openblas")
pytestmark = pytest.mark.skipif(not OPENBLAS.info(), reason="this NumPy has no OpenBLAS")


def n_threads() -> set[int]:
    return {library["num_threads"] for library in OPENBLAS.info()}


class Threads(BaseCallback):
    """Notes the number of threads at every step."""

    def __init__(self, failing: bool = False) -> None:
        super().__init__()
        self.failing = failing
        self.seen: set[int] = set()

    def _on_step(self) -> bool:
        self.seen |= n_threads()
        if self.failing:
            raise RuntimeError("stopped by the test")
        return True


def learn(**settings: Any) -> set[int]:
    callback = Threads(**settings)
    TRPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=32).learn(64, callback=callback)
    return callback.seen


@pytest.fixture
def several() -> Iterator[set[int]]:
    """Allow two threads; SciPy may have an OpenBLAS of its own that does not take more than one."""
    with OPENBLAS.limit(limits=2):
        before = n_threads()
        assert 2 in before
        yield before


def test_learn_uses_one_and_gives_the_others_back(several: set[int]) -> None:
    assert learn() == {1}
    assert n_threads() == several


def test_a_learn_that_fails_gives_them_back(several: set[int]) -> None:
    with pytest.raises(RuntimeError, match="stopped by the test"):
        learn(failing=True)
    assert n_threads() == several


def test_a_block_in_a_block(several: set[int]) -> None:
    with numpy_in_one_thread():
        with numpy_in_one_thread():
            assert n_threads() == {1}
        assert n_threads() == {1}
    assert n_threads() == several

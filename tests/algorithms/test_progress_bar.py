"""The progress bar is closed however `learn` ends."""

from typing import Any

import pytest
from stable_baselines3.common.callbacks import CallbackList, ProgressBarCallback

from sb3_trpo import TRPO
from tests.toy_envs import FaultyEnv

pytestmark = pytest.mark.filterwarnings("ignore:rich is experimental")  # tqdm says so

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0}


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("own", [False, True])
def test_a_progress_bar_is_closed(error: type[BaseException] | None, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []
    begin = ProgressBarCallback._on_training_start

    def remember(callback: ProgressBarCallback) -> None:
        begin(callback)
        bars.append(callback.pbar)

    monkeypatch.setattr(ProgressBarCallback, "_on_training_start", remember)
    model = TRPO("MlpPolicy", FaultyEnv(at=20, error=error), **SMALL)
    callback = CallbackList([ProgressBarCallback()]) if own else None
    if error is None:
        model.learn(32, callback, progress_bar=not own)
    else:
        with pytest.raises(error):
            model.learn(32, callback, progress_bar=not own)
    (bar,) = bars
    assert bar.disable or bar._prog.finished
    assert not bar._prog.live.is_started

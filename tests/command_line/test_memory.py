"""The command trains and evaluates models with memory, which the Zoo's scripts pass on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_trpo import RecurrentTRPO
from sb3_trpo.command_line.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


def test_train_and_enjoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    env = ["--algo", "trpo_lstm", "--env", "CartPoleNoVel-v1", "--seed", "1", "--device", "cpu", "--num-threads", "1"]
    main(["train", *env, "-n", "1024", "--eval-freq", "1024", "--eval-episodes", "1", "--n-eval-envs", "1", "--verbose", "0"])
    run = tmp_path / "logs" / "trpo_lstm" / "CartPoleNoVel-v1_1"
    model = RecurrentTRPO.load(run / "CartPoleNoVel-v1.zip")
    assert model.n_steps == 128  # of the entry
    states: list[Any] = []
    predict = RecurrentTRPO.predict

    def watched(self: RecurrentTRPO, observation: Any, state: Any = None, *args: Any, **kwargs: Any) -> Any:
        states.append(state)
        return predict(self, observation, state, *args, **kwargs)

    monkeypatch.setattr(RecurrentTRPO, "predict", watched)
    main(["enjoy", *env, "-n", "40", "--no-render"])
    assert "Episode Reward" in capsys.readouterr().out
    assert len(states) == 40
    assert states[0] is None
    assert all(np.any(state[0]) for state in states[1:])

"""The commands pass action masks, from any source."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sb3_trpo import MaskableTRPO
from sb3_trpo.command_line.main import main
from sb3_trpo.zoo import ALGORITHMS
from tests.masked_envs import MaskedEnv

# the Zoo and its libraries for plots and searches cause warnings; but ours about masks must not appear
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error:.*without `action_masks`")]


class Pictured(MaskedEnv):
    """An environment of which videos can be recorded, and which refuses forbidden actions."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  as in Gymnasium

    def __init__(self, where: str, render_mode: str | None = None) -> None:
        super().__init__(where=where)
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        return np.zeros((32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("algorithm", "where"),
    [("maskable_trpo", "info"), ("maskable_trpo", "env_method"), ("maskable_trpo_lstm", "info")],
)
def test_commands(algorithm: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"Masked{where.title().replace('_', '')}-v0"
    gym.register(name, entry_point=lambda **kwargs: Pictured(where, **kwargs), max_episode_steps=20)
    try:
        env = ["--algo", algorithm, "--env", name]
        short = ["-params", "n_steps:64", "batch_size:64", "--device", "cpu", "--num-threads", "1", "--verbose", "0"]
        main(["train", *env, "-n", "128", "--eval-freq", "64", "--eval-episodes", "2", *short])
        run = tmp_path / "logs" / algorithm / f"{name}_1"
        assert vars(ALGORITHMS[algorithm].load(run / f"{name}.zip"))["trained_with_masks"]
        assert np.load(run / "evaluations.npz")["results"].shape == (2, 2)
        main(["enjoy", *env, "--no-render", "-n", "50"])
        if (algorithm, where) == ("maskable_trpo", "info"):
            main(["record_video", *env, "-n", "10"])
            assert len(list((run / "videos").glob("*.mp4"))) == 1
    finally:
        gym.registry.pop(name)


def test_the_model_is_as_before_afterwards() -> None:
    assert MaskableTRPO.predict.__qualname__ == "MaskableTRPO.predict"

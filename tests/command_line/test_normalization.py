"""The statistics of VecNormalize stay with the model that they were saved with."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo import TRPO
from sb3_trpo.command_line.main import main
from sb3_trpo.command_line.normalization import continue_normalization, statistics_in_a_folder
from sb3_trpo.saving.statistics import statistics_of

pytestmark = pytest.mark.filterwarnings("ignore")

RUN = ["--env", "CartPole-v1", "--seed", "1", "--device", "cpu", "--num-threads", "1", "--verbose", "0"]
NORMALIZED = ["-params", "normalize:True", "n_envs:1", "n_steps:64", "batch_size:64"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Path:
    main(["train", *RUN, "-n", "256", "--eval-freq", "64", "--save-freq", "128", *NORMALIZED])
    return folder / "logs" / "trpo" / "CartPole-v1_1"


def steps_seen(path: Path | None) -> int:
    assert path is not None
    with path.open("rb") as file:
        return int(pickle.load(file).obs_rms.count)


def steps_taken(path: Path) -> int:
    return TRPO.load(path).num_timesteps


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of the statistics that are loaded."""
    set_venv, seen = VecNormalize.set_venv, []

    def remember(statistics: VecNormalize, venv: Any) -> None:  # which every way of loading calls
        seen.append(int(vars(statistics)["obs_rms"].count))
        set_venv(statistics, venv)

    monkeypatch.setattr(VecNormalize, "set_venv", remember)
    return seen


@pytest.mark.parametrize("content", [None, b"statistics"])
def test_statistics_in_a_folder(folder: Path, content: bytes | None) -> None:
    statistics = None if content is None else folder / "checkpoint.pkl"
    if statistics is not None and content is not None:
        statistics.write_bytes(content)
    with statistics_in_a_folder(statistics, "CartPole-v1") as found:
        assert (found.name, found.is_symlink(), list(found.parent.iterdir())) == ("CartPole-v1", False, [found])
        assert {path.name: path.read_bytes() for path in found.iterdir()} == ({"vecnormalize.pkl": content} if content else {})
    assert not found.parent.exists()


def test_the_zoo_is_shown_one_folder_without_links(folder: Path) -> None:
    (folder / "CartPole-v1").mkdir()
    (folder / "CartPole-v1" / "vecnormalize.pkl").write_bytes(b"statistics")
    agent = str(folder / "CartPole-v1.zip")
    manager = SimpleNamespace(trained_agent=agent, continue_training=True, normalize=True, env_name="CartPole-v1")

    def maybe_normalize(manager: Any, env: Any, eval_env: bool) -> bytes:
        shown = Path(manager.trained_agent).parent
        assert [path for path in shown.rglob("*") if path.is_symlink()] == []
        return Path(shown, manager.env_name, "vecnormalize.pkl").read_bytes()

    assert continue_normalization(maybe_normalize)(manager, None, False) == b"statistics"
    assert manager.trained_agent == agent


def test_every_model_of_a_run_has_its_own(run: Path, folder: Path, loaded: list[int]) -> None:
    models = {path.name: path for path in run.glob("*.zip")}
    assert set(models) == {"CartPole-v1.zip", "best_model.zip", "rl_model_128_steps.zip", "rl_model_256_steps.zip"}
    seen = {name: steps_seen(statistics_of(path)) for name, path in models.items()}
    first = seen["rl_model_128_steps.zip"] - 128  # of the reset
    assert seen == {name: steps_taken(path) + first for name, path in models.items()}
    assert not list(run.rglob("*.tmp"))
    assert len(list(run.glob("best_model_vecnormalize_*"))) == 1

    for name, path in models.items():
        main(["train", *RUN, "-n", "64", "--eval-freq", "-1", "-i", str(path), *NORMALIZED])
        assert loaded.pop() == seen[name]
    for options, name in (
        (["--load-best"], "best_model.zip"),
        (["--load-checkpoint", "128"], "rl_model_128_steps.zip"),
        (["--load-last-checkpoint"], "rl_model_256_steps.zip"),
        ([], "CartPole-v1.zip"),
    ):
        loaded.clear()
        main(["enjoy", "--env", "CartPole-v1", "--no-render", "-n", "8", "--exp-id", "1", "--device", "cpu", *options])
        assert loaded == [seen[name]]

    (run / "rl_model_vecnormalize_128_steps.pkl").unlink()
    enjoy = ["enjoy", "--env", "CartPole-v1", "--no-render", "-n", "8", "--exp-id", "1", "--load-checkpoint", "128"]
    with pytest.warns(UserWarning, match=r"no statistics of VecNormalize were saved with .*128_steps.zip"):
        main(enjoy)
    with pytest.raises(ValueError, match=r"saved with .*rl_model_128_steps.zip.* no .*rl_model_vecnormalize_128_steps.pkl"):
        main(["train", *RUN, "-n", "64", "--eval-freq", "-1", "-i", str(models["rl_model_128_steps.zip"]), *NORMALIZED])


def test_the_best_model_does_not_take_those_of_another(run: Path) -> None:
    best = run / "best_model.zip"
    (own,) = run.glob("best_model_vecnormalize_*")
    own.rename(run / "best_model_vecnormalize_1_steps.pkl")
    assert statistics_of(best) is None
    (run / "best_model_vecnormalize_1_steps.pkl").unlink()
    assert statistics_of(best) is None
    (run / "CartPole-v1.zip").unlink()  # the training was killed before its end
    assert statistics_of(best) == run / "CartPole-v1" / "vecnormalize.pkl"


def test_a_new_training_reads_no_statistics_of_the_current_folder(run: Path, folder: Path, loaded: list[int]) -> None:
    (run / "CartPole-v1").rename(folder / "CartPole-v1")
    main(["train", *RUN, "-n", "64", "--eval-freq", "64", *NORMALIZED])
    assert loaded == []

"""``sb3-trpo train --resume`` continues a training that was interrupted as if it had not been."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch as th

from sb3_trpo import TRPO
from sb3_trpo.command_line.main import main
from sb3_trpo.command_line.resume import unfinished_run
from sb3_trpo.saving.checkpoint_folder import read_newest
from sb3_trpo.saving.folder_lock import FolderLock

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = ["--env", "CartPole-v1", "--seed", "1", "-n", "3200", "--eval-freq", "500", "--eval-episodes", "1", "--verbose", "0"]
SHORT += ["--num-threads", "1", "--device", "cpu", "-params", "n_envs:2", "n_steps:64", "batch_size:64"]


def test_a_training_that_was_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["train", *SHORT])
    train, n_updates = TRPO.train, []

    def interrupted(model: Any) -> None:
        n_updates.append(1)
        if len(n_updates) == 15:  # the last checkpoint is ten updates after the first
            raise SystemExit
        train(model)

    monkeypatch.setattr(TRPO, "train", interrupted)
    with pytest.raises(SystemExit):
        main(["train", "--resume", *SHORT])
    monkeypatch.setattr(TRPO, "train", train)
    assert not Path("logs/trpo/CartPole-v1_2/CartPole-v1.zip").exists()
    main(["train", *SHORT, "--resume"])
    assert "Resuming logs/trpo/CartPole-v1_2" in capsys.readouterr().out
    whole, resumed = (TRPO.load(f"logs/trpo/CartPole-v1_{i}/CartPole-v1") for i in (1, 2))
    assert whole.num_timesteps == resumed.num_timesteps == 3200
    assert all(map(th.equal, whole.policy.state_dict().values(), resumed.policy.state_dict().values()))
    episodes = [Path(f"logs/trpo/CartPole-v1_{i}/0.monitor.csv").read_text().splitlines()[2:] for i in (1, 2)]
    assert [row.rpartition(",")[0] for row in episodes[0]] == [row.rpartition(",")[0] for row in episodes[1]]
    main(["train", "--resume", *SHORT])  # the last run is finished, so this is a new one
    assert Path("logs/trpo/CartPole-v1_3/CartPole-v1.zip").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_training_that_saved_a_model_before_its_end_goes_on(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    command = ["train", "--resume", *SHORT, "--eval-freq", "-1"]
    command[command.index("3200")] = "128"
    with monkeypatch.context() as broken, suppress(RuntimeError):
        broken.setattr(TRPO, "train", fail)
        main(command)
    assert Path("logs/trpo/CartPole-v1_1/CartPole-v1.zip").exists()
    monkeypatch.setattr(TRPO, "train", lambda _: None)
    main(command)
    assert "Resuming logs/trpo/CartPole-v1_1" in capsys.readouterr().out
    assert unfinished_run(Path("logs/trpo"), "CartPole-v1") is None


def test_a_run_that_is_going_on_is_not_resumed(tmp_path: Path) -> None:
    folders = [tmp_path / f"CartPole-v1_{i}" / "resume" for i in (1, 2)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "checkpoint_000000000064.zip").touch()
    assert unfinished_run(tmp_path, "CartPole-v1") == folders[1].parent
    lock = FolderLock(folders[1])
    assert unfinished_run(tmp_path, "CartPole-v1") == folders[0].parent
    lock.release()
    assert unfinished_run(tmp_path, "CartPole-v1") == folders[1].parent


def test_only_trainings_can_be_resumed() -> None:
    with pytest.raises(SystemExit, match="`--resume` is an option of `train`, not of `enjoy`"):
        main(["enjoy", "--resume"])


def test_environments_in_processes_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TRPO, "train", lambda _: None)
    command = ["train", "--resume", *SHORT, "--eval-freq", "-1", "--vec-env", "subproc"]
    command[command.index("3200")] = "128"
    main(command)
    environments = read_newest(Path("logs/trpo/CartPole-v1_1/resume")).state["environments"]
    assert len(environments.workers) == 2

"""The command ``train``, started by torchrun."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sb3_trpo.command_line.distributed import choice_of_the_first, is_first, shared_training
from sb3_trpo.command_line.main import main
from tests.ranks import EndedError, run_ranks

pytest.importorskip("rl_zoo3")
TINY = ["n_steps:32", "n_envs:2", "batch_size:64", "n_critic_updates:1", "normalize:True"]


def kill_when_saved(folder: Path) -> None:
    """End this process as soon as a checkpoint of a later update exists."""
    while len(list(folder.glob("logs/trpo/Pendulum-v1_1/resume/checkpoint_*.zip"))) < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def train(rank: int, folder: str, n_timesteps: int, killed: bool) -> None:
    os.chdir(folder)
    if killed and rank == 1:
        threading.Thread(target=kill_when_saved, args=(Path(folder),), daemon=True).start()
    options = ["--env", "Pendulum-v1", "-n", str(n_timesteps), "--seed", "3", "--eval-freq", "640", "--eval-episodes", "1"]
    main(["train", *options, "--resume", "--hyperparams", *TINY])


def test_training_is_shared_killed_and_resumed(tmp_path: Path) -> None:
    killed = run_ranks(2, train, str(tmp_path), 10**6, True)
    assert isinstance(killed[0], RuntimeError)
    assert str(killed[0]).startswith("rank 1 has ended without a message")
    assert isinstance(killed[1], EndedError)
    (run,) = (tmp_path / "logs" / "trpo").iterdir()
    assert not (run / "Pendulum-v1.zip").exists()  # it would say that the run is finished
    steps = max(int(path.stem.rpartition("_")[2]) for path in (run / "resume").glob("*.zip"))
    results = run_ranks(2, train, str(tmp_path), steps + 256, False)
    assert results == [None, None]
    assert [path.name for path in (tmp_path / "logs" / "trpo").iterdir()] == ["Pendulum-v1_1"]
    assert (run / "Pendulum-v1.zip").exists()
    assert (run / "Pendulum-v1" / "vecnormalize.pkl").exists()
    assert sorted(path.name for path in run.glob("*.monitor.csv")) == ["0.monitor.csv", "1.monitor.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def refuse(rank: int) -> list[str]:
    messages = []
    for command, options in (("enjoy", []), ("train", ["-optimize"])):
        try:
            with shared_training(command, options):
                pass
        except SystemExit as error:
            messages.append(str(error))
    with shared_training("train", ["--track", "--seed=1"]) as given:
        messages.append(" ".join(given[:3]))
    return [*messages, str(choice_of_the_first(f"of {rank}")), str(is_first())]


def test_commands_that_cannot_be_shared_are_refused() -> None:
    results = run_ranks(2, refuse)
    for result in results:
        assert result[:2] == ["sb3-trpo: of the commands, only `train` without `-optimize` can be started by torchrun"] * 2
        assert result[3] == "of 0"
    assert results[0][2] == "--track --seed=1"
    assert results[1][2].startswith("--seed=1 --log-folder /")
    assert [result[4] for result in results] == ["True", "False"]


def test_without_torchrun_the_options_stay() -> None:
    with shared_training("enjoy", ["--env", "A"]) as options:
        assert options == ["--env", "A"]
    assert (choice_of_the_first(None), is_first()) == (None, True)

"""
Kill runs with SIGKILL again and again, resume them, and compare their end with that of an undisturbed run.

Half of the kills come at a random moment, the others inside a save: before the file is synchronised, or before it takes its
place. Weights must be equal bit for bit, and the rows of the log except for what the clock tells::

    python -m benchmarks.kills --kills 15  # of each run, 120 in all
"""

import argparse
import csv
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from benchmarks.common.environments import make_env
from benchmarks.common.tables import print_head, print_row
from sb3_trpo import TRPO, MaskableTRPO, RecurrentTRPO, ResumableEnv, ResumeCallback, VineTRPO
from sb3_trpo.saving.checkpoint_folder import checkpoints_in

N_UPDATES = 60


class Case(NamedTuple):
    """
    A run.

    :param cls: class of the model
    :param policy: name of the policy
    :param env: makes the environments
    :param settings: arguments of the model
    """

    cls: type[TRPO]
    policy: str
    env: Callable[[], VecEnv]
    settings: dict[str, Any]


def _processes() -> VecEnv:
    return make_vec_env("Pendulum-v1", 2, seed=0, wrapper_class=ResumableEnv, vec_env_cls=SubprocVecEnv)


CASES: dict[str, Case] = {
    "CartPole-v1": Case(TRPO, "MlpPolicy", lambda: make_vec_env("CartPole-v1", 4, seed=0), {}),
    "Pendulum-v1, gSDE": Case(TRPO, "MlpPolicy", lambda: make_vec_env("Pendulum-v1", 2, seed=0), {"use_sde": True}),
    "Pendulum-v1, two processes": Case(TRPO, "MlpPolicy", _processes, {}),
    "HalfCheetah-v5, VecNormalize": Case(
        TRPO, "MlpPolicy", lambda: VecNormalize(make_vec_env("HalfCheetah-v5", 1, seed=0)), {}
    ),
    "Pong, four frames": Case(
        TRPO, "PaperCnnPolicy", lambda: make_env("PongNoFrameskip-v4", 2, 0), {"n_critic_updates": 2, "n_steps": 32}
    ),
    "CartPole-v1, LSTM": Case(
        RecurrentTRPO,
        "MlpLstmPolicy",
        lambda: make_vec_env("CartPole-v1", 4, seed=0),
        {"policy_kwargs": {"lstm_hidden_size": 16}},
    ),
    "Taxi-v4, masks": Case(MaskableTRPO, "MlpPolicy", lambda: make_vec_env("Taxi-v4", 4, seed=0), {}),
    "CartPole-v1, vine": Case(VineTRPO, "MlpPolicy", lambda: make_vec_env("CartPole-v1", 1, seed=0), {"branch_length": 4}),
}


def run(name: str, folder: Path, kill_in_save: int) -> None:
    """
    Begin a run or go on with it, and write the hash of its final weights.

    :param name: a key of :data:`CASES`
    :param folder: folder of the run
    :param kill_in_save: number of files that are synchronised before SIGKILL ends the process; 0: it is not ended here
    """
    th.set_num_threads(1)
    case, checkpoints = CASES[name], folder / "checkpoints"
    if kill_in_save:
        _kill_in_save(kill_in_save)
    env = case.env()
    if checkpoints_in(checkpoints):
        model = case.cls.resume(checkpoints, env, device="cpu")
    else:
        settings = {"n_steps": 64, "batch_size": 64, "seed": 0, "device": "cpu", **case.settings}
        model = case.cls(case.policy, env, **settings)
    model.set_logger(configure(str(folder), ["csv"]))
    print("begins", flush=True)
    model.learn(N_UPDATES * model.n_steps * env.num_envs, ResumeCallback(checkpoints, every=3))
    weights = b"".join(value.numpy().tobytes() for value in model.policy.state_dict().values())
    (folder / "weights.txt").write_text(hashlib.sha256(weights).hexdigest())


def _kill_in_save(n: int) -> None:
    """Let SIGKILL end this process in the n-th save: before its file is synchronised or, for even n, before it is moved."""
    name = "fsync" if n % 2 else "replace"
    calls, function = [0], getattr(os, name)

    def killing(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] >= n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    setattr(os, name, killing)


def start(name: str, folder: Path, kill_in_save: int = 0) -> subprocess.Popen[str]:
    """Start :func:`run` in a process, and wait until it learns."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kills", "--run", name, "--folder", str(folder)]
    process = subprocess.Popen([*command, "--kill-in-save", str(kill_in_save)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() not in ("begins", ""):
        pass
    return process


def killed_run(name: str, folder: Path, kills: int, seconds: float, rng: np.random.Generator) -> int:
    """
    Kill a run many times until it ends.

    :param name: a key of :data:`CASES`
    :param folder: folder of the run
    :param kills: number of kills to try
    :param seconds: that an undisturbed run takes
    :param rng: draws the moments
    :return: number of kills that found the run alive
    """
    hits = 0
    for i in range(kills):
        if i % 2:
            process = start(name, folder, kill_in_save=int(rng.integers(1, 4)))
            process.wait()
        else:
            process = start(name, folder)
            time.sleep(float(rng.uniform(0.0, 3.0 * seconds / kills)))
            process.kill()
            process.wait()
        hits += process.returncode == -signal.SIGKILL
    start(name, folder).wait()
    return hits


def rows(folder: Path) -> list[dict[str, str]]:
    """Read the log without what the clock tells."""
    clock = ("time/fps", "time/time_elapsed", "seconds")
    with (folder / "progress.csv").open() as file:
        return [{key: value for key, value in row.items() if not key.endswith(clock)} for row in csv.DictReader(file)]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Resumed runs against undisturbed ones.")
    parser.add_argument("--kills", type=int, default=15, help="kills of each run")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    parser.add_argument("--run", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-in-save", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Kill every run and print what became of it, or be one of the runs."""
    options = parse(arguments)
    if options.run is not None:
        run(options.run, options.folder, options.kill_in_save)
        return
    rng = np.random.default_rng(options.seed)
    print_head("run", "kills", "weights", "rows of the log")
    for name in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            whole, killed = (Path(temporary) / part for part in ("whole", "killed"))
            process, began = start(name, whole), time.perf_counter()
            process.wait()
            hits = killed_run(name, killed, options.kills, time.perf_counter() - began, rng)
            same = (whole / "weights.txt").read_text() == (killed / "weights.txt").read_text()
            same_rows = rows(whole) == rows(killed)
            print_row(name, str(hits), "equal" if same else "different", "equal" if same_rows else "different")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Measure what ``ResumeCallback`` costs on HalfCheetah-v5 with ``VecNormalize``.

The script prints the medians of 30 checkpoints, and the CPU time of runs of 50 updates with a checkpoint every ten updates
against that of runs without, trained in turns::

    python -m benchmarks.checkpoint_cost
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.common.patching import replaced
from benchmarks.common.settings import FIXED_BOUND
from benchmarks.common.timing import in_turns, timed
from sb3_trpo import TRPO, ResumeCallback

N_CHECKPOINTS = 30
N_UPDATES = 50


def learn(n_updates: int, callback: ResumeCallback | None) -> float:
    """
    Train a model from its beginning.

    :param n_updates: number of updates
    :param callback: saves the run
    :return: seconds of CPU time
    """
    env = VecNormalize(make_vec_env("HalfCheetah-v5", 1, seed=0))
    model = TRPO("MlpPolicy", env, seed=0, device="cpu", **FIXED_BOUND)
    started = time.process_time()
    model.learn(n_updates * model.n_steps, callback)
    return time.process_time() - started


def one_checkpoint() -> str:
    """Measure checkpoints one by one, and describe the medians."""
    cpu: list[float] = []
    waits: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        replaced("os.fsync", lambda fsync: timed(fsync, waits)),
        replaced("sb3_trpo.saving.resume_callback.ResumeCallback._save", lambda save: timed(save, cpu, time.process_time)),
    ):
        learn(N_CHECKPOINTS, ResumeCallback(folder, every=1))
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    return f"{1e3 * np.median(cpu):.1f} ms of CPU time, {1e3 * np.median(waits):.1f} ms for each fsync, {size:,} bytes"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="The cost of a checkpoint, and of a run with checkpoints.")
    parser.add_argument("--rounds", type=int, default=5, help="runs with and without checkpoints")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    options = parse(arguments)
    th.set_num_threads(1)
    print(one_checkpoint())

    def saving() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return learn(N_UPDATES, ResumeCallback(folder, every=10))

    cost = 1.0 - in_turns(saving, lambda: learn(N_UPDATES, None), options.rounds).ratio
    print(f"{cost:.1%} of the CPU time of a run with a checkpoint every ten updates")


if __name__ == "__main__":
    main(sys.argv[1:])

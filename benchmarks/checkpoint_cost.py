"""
Measure what a checkpoint of ``ResumeCallback`` costs on HalfCheetah-v5 with ``VecNormalize``: medians of 30 checkpoints.

::

    python -m benchmarks.checkpoint_cost
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.common.patching import replaced
from benchmarks.common.timing import timed
from sb3_trpo import TRPO, ResumeCallback

N_CHECKPOINTS = 30


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    return argparse.ArgumentParser(description="The cost of a checkpoint.").parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parse(arguments)
    th.set_num_threads(1)
    cpu: list[float] = []
    waits: list[float] = []

    os.fsync = timed(os.fsync, waits)
    with (
        tempfile.TemporaryDirectory() as folder,
        replaced("sb3_trpo.saving.resume_callback.ResumeCallback._save", lambda save: timed(save, cpu, time.process_time)),
    ):
        env = VecNormalize(make_vec_env("HalfCheetah-v5", 1, seed=0))
        model = TRPO("MlpPolicy", env, seed=0, device="cpu")
        model.learn(N_CHECKPOINTS * model.n_steps, ResumeCallback(folder, every=1))
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    print(f"{1e3 * np.median(cpu):.1f} ms of CPU time, {1e3 * np.median(waits):.1f} ms for each fsync, {size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Names the worker process that has ended, where an environment of several processes only says that a pipe is closed."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from traceback import walk_tb
from typing import Any

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

_PATIENCE = 5.0
"""Seconds that processes have to end."""

_NAMES = {int(number): number.name for number in signal.Signals}
"""Names of signals by their numbers; real-time signals have none."""


@contextmanager
def dead_workers_named(env: VecEnv | None) -> Iterator[None]:
    """
    Replace the error of a closed pipe by one that names the worker of the ``SubprocVecEnv`` that has ended.

    The other workers are ended too, because such an environment can neither be stepped nor reset, and SB3 would wait for them
    for ever in ``close``. Workers that were forked hold each other's pipes open, so the end of a worker of ``env`` is watched
    for as well; other environments, such as that of an evaluation, are not watched.

    :param env: the training environments; None: there are none
    :raises RuntimeError: naming the worker and its exit code
    """
    try:
        with _watched(env.unwrapped if env is not None else None):
            yield
    except (EOFError, OSError) as error:
        for env in _environments(error):
            dead = _dead_workers(env)
            if dead and not (env.closed and not any(dead.values())):  # otherwise its user has closed it
                end_workers(env)
                raise RuntimeError(_describe(dead)) from error
        raise


class _WatchedPipe:
    """
    A pipe to a worker that raises an error when the worker has ended without an answer.

    :param pipe: the pipe
    :param sentinel: what becomes ready when the worker ends
    """

    def __init__(self, pipe: Any, sentinel: int) -> None:
        self._pipe = pipe
        self._sentinel = sentinel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def recv(self) -> Any:
        """Receive an answer."""
        if not self._pipe.poll() and self._pipe not in connection.wait([self._pipe, self._sentinel]):
            raise EOFError
        return self._pipe.recv()


@contextmanager
def _watched(env: VecEnv | None) -> Iterator[None]:
    """Watch the workers of a ``SubprocVecEnv`` within the context."""
    if not isinstance(env, SubprocVecEnv):
        yield
        return
    pipes = env.remotes
    env.remotes = tuple(_WatchedPipe(pipe, process.sentinel) for pipe, process in zip(pipes, env.processes, strict=True))
    try:
        yield
    finally:
        env.remotes = pipes


def end_workers(env: SubprocVecEnv) -> None:
    """
    End the workers of an environment without waiting for an answer, and close it.

    :param env: the environment
    """
    for remote in env.remotes:
        with suppress(OSError):
            remote.send(("close", None))
    deadline = time.monotonic() + _PATIENCE
    for process in env.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():  # busy in a step, or in writing a result that nobody reads
            process.terminate()
            process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
    for remote in env.remotes:
        remote.close()
    env.waiting, env.closed = False, True


def _environments(error: BaseException) -> Iterator[SubprocVecEnv]:
    """Find the environments whose methods an error came through, whichever wrappers and callbacks are around them."""
    for frame, _ in walk_tb(error.__traceback__):
        env = frame.f_locals.get("self")
        if isinstance(env, SubprocVecEnv):
            yield env


def _dead_workers(env: SubprocVecEnv) -> dict[int, Any]:
    """Return the exit codes of the workers that have ended; a pipe closes a moment before its process ends."""
    deadline = time.monotonic() + _PATIENCE
    while not (codes := {i: process.exitcode for i, process in enumerate(env.processes) if not process.is_alive()}):
        if env.closed or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return codes


def _describe(codes: dict[int, Any]) -> str:
    failed = {i: code for i, code in codes.items() if code}  # workers that were told to end have exit code 0
    parts = []
    for i, code in (failed or codes).items():
        killed = f" (killed by {_NAMES.get(-code, 'a signal')})" if code < 0 else ""
        parts.append(f"worker {i} of the SubprocVecEnv ended with exit code {code}{killed}")
    hint = "a worker that raised an error has printed it above; the environments must be made anew"
    return f"{', '.join(parts)}; {hint}"

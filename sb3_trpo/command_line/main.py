"""The ``sb3-trpo`` command: RL Zoo's scripts with this package's TRPO and its hyperparameters as the default."""

import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple


class Script(NamedTuple):
    """
    A script of RL Zoo.

    :param module: the module to run
    :param about: what it does
    :param defaults: arguments that come before the user's, so that the user's win
    """

    module: str
    about: str
    defaults: tuple[str, ...] = ()


_ALGO = ("--algo", "trpo")
_FOLDER = ("--folder", "logs")
_HYPERPARAMETERS = "{hyperparameters}"
_SINGLE_FRAMES = "frameskip:1"
_TRAIN = (*_ALGO, "--conf-file", _HYPERPARAMETERS)

SCRIPTS = {
    "train": Script("rl_zoo3.train", "train with the hyperparameters of zoo_hyperparams/trpo.yml", _TRAIN),
    "tune": Script("rl_zoo3.train", "search hyperparameters: train with -optimize", (*_TRAIN, "-optimize")),
    "enjoy": Script("rl_zoo3.enjoy", "watch or evaluate a trained model", (*_ALGO, *_FOLDER)),
    "plot_train": Script("rl_zoo3.plots.plot_train", "plot the training rewards", (*_ALGO, "--exp-folder", "logs")),
    "all_plots": Script("rl_zoo3.plots.all_plots", "plot the evaluations", ("--algos", "trpo", "--exp-folders", "logs")),
    "plot_from_file": Script("rl_zoo3.plots.plot_from_file", "plot what all_plots has written to a file"),
    "record_video": Script("rl_zoo3.record_video", "film a trained model", (*_ALGO, *_FOLDER)),
    "record_training": Script("rl_zoo3.record_training", "film the checkpoints of a training", (*_ALGO, *_FOLDER)),
    "push_to_hub": Script("rl_zoo3.push_to_hub", "share a trained model on the Hugging Face hub", (*_ALGO, *_FOLDER)),
    "load_from_hub": Script("rl_zoo3.load_from_hub", "fetch a trained model from the Hugging Face hub", (*_ALGO, *_FOLDER)),
}

_NEEDS = {"all_plots": ("--env", "-e", "ENV"), "plot_from_file": ("--input", "-i", "FILE")}
"""Options without which a script fails with another error: their names, and what follows."""

_HUB = ("enjoy", "push_to_hub", "load_from_hub")
"""Commands that reach for the Hugging Face hub; ``enjoy`` does for a model of ``rl-trained-agents`` that is not there."""


def usage() -> str:
    """
    :return: the help text
    """
    lines = [f"  {name:16} {script.about}" for name, script in SCRIPTS.items()]
    return "\n".join(
        [
            "usage: sb3-trpo COMMAND [OPTION ...]",
            "",
            "RL Zoo's scripts with `--algo trpo` implied; every option of theirs is passed on.",
            "",
            *lines,
            "",
            "`sb3-trpo COMMAND --help` lists the options of a command.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run one of the Zoo's scripts.

    :param arguments: the command line, without the program; None: that of this process
    :raises SystemExit: with the help text or an error message
    """
    command, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command == "--version":
        print(f"sb3-trpo {version('sb3-trpo')}")
        return
    if command not in SCRIPTS:
        raise SystemExit(f"sb3-trpo: unknown command {command!r}\n\n{usage()}")
    _refuse_other_algorithms(SCRIPTS[command], options)
    _refuse_what_is_missing(command, options)
    try:
        from sb3_trpo.command_line.hub import mend_hub
        from sb3_trpo.command_line.patches import mended_zoo
        from sb3_trpo.zoo import hyperparameters_file
    except ModuleNotFoundError as error:
        raise SystemExit(f"sb3-trpo: {error}. The commands need RL Zoo: pip install 'sb3-trpo[zoo]'") from error
    script = SCRIPTS[command]
    defaults = [default.replace(_HYPERPARAMETERS, str(hyperparameters_file())) for default in script.defaults]
    if command in _HUB:
        mend_hub()
    import_module(script.module.rpartition(".")[0])
    sys.modules.pop(script.module, None)  # or runpy warns of the plots, which their package imports
    with mended_zoo(), _arguments(f"sb3-trpo {command}", [*defaults, *_with_single_frames(script, options)]):
        runpy.run_module(script.module, run_name="__main__")


def _refuse_other_algorithms(script: Script, options: Sequence[str]) -> None:
    """The hyperparameters are TRPO's; only the plots can show others too."""
    if script.module.startswith("rl_zoo3.plots."):
        return
    for named in (value for name, value in _values(options) if _abbreviates(name, "--algo", "--a")):
        if named not in ("trpo", "vine_trpo"):
            instead = f"python -m {script.module}"
            raise SystemExit(f"sb3-trpo: `--algo` must be trpo or vine_trpo, not {named!r}; for that there is {instead}")


def _refuse_what_is_missing(command: str, options: Sequence[str]) -> None:
    if {"-h", "--help"} & set(options):
        return
    if command in _NEEDS:
        long, short, value = _NEEDS[command]
        names = [name for name, _ in _values(options) if name != "-iqm"]  # an option of its own, not -i
        if not any(name.startswith(short) or _abbreviates(name, long, long[:4]) for name in names):
            message = f"`{command}` needs `{long} {value}`; `sb3-trpo {command} --help` lists all options"
            raise SystemExit(f"sb3-trpo: {message}")
    if command == "record_training" and shutil.which("ffmpeg") is None:  # the script deletes the last film before it asks
        raise SystemExit("sb3-trpo: `record_training` needs the program ffmpeg, which is not installed")


def _with_single_frames(script: Script, options: Sequence[str]) -> list[str]:
    """
    All games but ``NoFrameskip`` repeat an action themselves, and ``AtariWrapper`` would repeat that four times. The ``atari``
    entry tells them not to, but what it says is lost where the command line tells them something else. A ``frameskip`` on the
    command line counts last.
    """
    given = dict(_values(options))
    own_file = any(name == "-conf" or _abbreviates(name, "--conf-file", "--c") for name in given)
    if script.module != "rl_zoo3.train" or own_file or not _skips_frames(given.get("--env", "")):
        return list(options)
    result: list[str] = []
    for option in options:
        name, _, joined = option.partition("=")
        if _abbreviates(name, "--env-kwargs", "--env-") or _abbreviates(name, "--eval-env-kwargs", "--eval-en"):
            result += [name, _SINGLE_FRAMES, *([joined] if joined else [])]
        else:
            result.append(option)
    return result


def _skips_frames(env_id: str) -> bool:
    """Whether it is an Atari game that repeats actions."""
    import gymnasium
    import rl_zoo3.import_envs  # noqa: F401  registers the games

    spec = gymnasium.registry.get(env_id)
    return spec is not None and "AtariEnv" in str(spec.entry_point) and spec.kwargs.get("frameskip") != 1


def _abbreviates(name: str, option: str, shortest: str) -> bool:
    """Whether a script of the Zoo reads the name as the option: argparse takes what no other option begins with."""
    return option.startswith(name) and name.startswith(shortest)


def _values(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option with what follows it, after ``=`` or as the next argument."""
    for option, following in zip(options, [*options, ""][1:], strict=True):
        name, _, joined = option.partition("=")
        yield name, joined or following


@contextmanager
def _arguments(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """The command line as the Zoo's scripts read it."""
    before = sys.argv
    sys.argv = [program, *arguments]
    try:
        yield
    finally:
        sys.argv = before

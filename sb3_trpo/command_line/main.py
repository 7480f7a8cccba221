"""The ``sb3-trpo`` command: RL Zoo's scripts with this package's TRPO and its hyperparameters as the default."""

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from sb3_trpo.command_line.distributed import shared_training
from sb3_trpo.command_line.options import abbreviates, values
from sb3_trpo.command_line.requirements import check_requirements
from sb3_trpo.command_line.resume import resumed_training, without_option


class Script(NamedTuple):
    """
    A script of RL Zoo.

    :param module: the module to run
    :param about: a short description
    :param defaults: arguments placed before the user's, so that the user's take precedence
    """

    module: str
    about: str
    defaults: tuple[str, ...] = ()


_ALGORITHMS = (
    *("trpo", "vine_trpo", "npg", "kl_penalty_trpo", "dual_trpo"),
    *("maskable_trpo", "trpo_lstm", "maskable_trpo_lstm"),
)
_ALGO = ("--algo", _ALGORITHMS[0])
_FOLDER = ("--folder", "logs")
_HYPERPARAMETERS = "{hyperparameters}"
_SINGLE_FRAMES = "frameskip:1"
_TRAIN = (*_ALGO, "--conf-file", _HYPERPARAMETERS)

SCRIPTS = {
    "train": Script("rl_zoo3.train", "train with the hyperparameters of zoo_hyperparams/ALGO.yml", _TRAIN),
    "tune": Script("rl_zoo3.train", "search hyperparameters: train with -optimize", (*_TRAIN, "-optimize")),
    "enjoy": Script("rl_zoo3.enjoy", "watch or evaluate a trained model", (*_ALGO, *_FOLDER)),
    "plot_train": Script("rl_zoo3.plots.plot_train", "plot the training rewards", (*_ALGO, "--exp-folder", "logs")),
    "all_plots": Script("rl_zoo3.plots.all_plots", "plot the evaluations", ("--algos", "trpo", "--exp-folders", "logs")),
    "plot_from_file": Script("rl_zoo3.plots.plot_from_file", "plot what all_plots has written to a file"),
    "record_video": Script("rl_zoo3.record_video", "record a video of a trained model", (*_ALGO, *_FOLDER)),
    "record_training": Script("rl_zoo3.record_training", "record videos of a training's checkpoints", (*_ALGO, *_FOLDER)),
    "push_to_hub": Script("rl_zoo3.push_to_hub", "share a trained model on the Hugging Face hub", (*_ALGO, *_FOLDER)),
    "load_from_hub": Script("rl_zoo3.load_from_hub", "fetch a trained model from the Hugging Face hub", (*_ALGO, *_FOLDER)),
}

OWN = {
    "export": Script("sb3_trpo.command_line.export:export", "write a trained model as an ONNX file or a torch program"),
    "inspect": Script("sb3_trpo.command_line.inspect:inspect", "print what a saved file holds and what it would run"),
    "plot_updates": Script("sb3_trpo.command_line.plots:draw", "draw every update of a run from its progress.csv"),
}
"""Commands of this package, which need no RL Zoo: each names a module and its function."""

_HUB = ("enjoy", "push_to_hub", "load_from_hub")
"""Commands that use the Hugging Face hub; ``enjoy`` downloads a model of ``rl-trained-agents`` that is missing."""


_TRUSTED = "--trusted"
"""The option that lets saved files run the code that they contain."""


_MISTAKES = (
    "not found in gym registry",
    "folder was not found",
    "No model found",
    "No checkpoint found",
    "has no argument",
)
"""Parts of the messages that answer a user's mistake, and that a traceback would hide."""


def usage() -> str:
    """
    Write the help text.

    :return: the help text
    """
    scripts, own = ([f"  {name:16} {script.about}" for name, script in table.items()] for table in (SCRIPTS, OWN))
    return "\n".join(
        [
            "usage: sb3-trpo COMMAND [OPTION ...]",
            "",
            "RL Zoo's scripts with `--algo trpo` implied. All their options are passed on.",
            f"Nothing in a saved file runs, unless `{_TRUSTED}` is among the options.",
            "",
            *scripts,
            "",
            "Commands of this package:",
            "",
            *own,
            "",
            "`sb3-trpo train --resume` saves the run as it goes, and continues the last one that was not finished.",
            "`sb3-trpo COMMAND --help` lists the other options of a command.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run one of the Zoo's scripts, or a command of this package.

    :param arguments: the command line, without the program; None: the arguments of this process
    :raises SystemExit: with the help text or an error message
    """
    command, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command == "--version":
        print(f"sb3-trpo {version('sb3-trpo')}")
        return
    if command in OWN:
        module, _, function = OWN[command].module.partition(":")
        getattr(import_module(module), function)(f"sb3-trpo {command}", options)
        return
    if command not in SCRIPTS:
        raise SystemExit(f"sb3-trpo: unknown command {command!r}\n\n{usage()}")
    options, resume = without_option(command, options)
    algorithm = _chosen_algorithm(SCRIPTS[command], options)
    check_requirements(command, options)
    try:
        from sb3_trpo.command_line.patches import patch_hub, patched_zoo
        from sb3_trpo.zoo import hyperparameters_file
    except ModuleNotFoundError as error:
        raise SystemExit(f"sb3-trpo: {error}. The commands need RL Zoo: pip install 'sb3-trpo[zoo]'") from error
    script, trusted = SCRIPTS[command], _TRUSTED in options
    options = [option for option in options if option != _TRUSTED]
    defaults = [default.replace(_HYPERPARAMETERS, str(hyperparameters_file(algorithm))) for default in script.defaults]
    if command in _HUB:
        patch_hub()
    import_module(script.module.rpartition(".")[0])
    sys.modules.pop(script.module, None)  # otherwise runpy warns about the plots, which their package has imported
    patches = patched_zoo(trusted, _own_packages(options), algorithm.startswith("maskable"), command, options)
    # the outer patch of the set-up is that of a shared run, which the resumed one then asks for its model
    with patches, resumed_training() if resume else nullcontext(), shared_training(command, options) as own:
        words = [*defaults, *_with_single_frames(script, own)]
        with _arguments(f"sb3-trpo {command}", words), _mistakes_in_a_line():
            runpy.run_module(script.module, run_name="__main__")


def _own_packages(options: Sequence[str]) -> list[str]:
    """List the packages that the user names with ``--gym-packages``."""
    packages: list[str] = []
    inside = False
    for option in options:
        name, _, joined = option.partition("=")
        if option.startswith("-"):
            inside = abbreviates(name, "--gym-packages", "--gy")
            packages += [joined] if inside and joined else []
        elif inside:
            packages.append(option)
    return packages


def _chosen_algorithm(script: Script, options: Sequence[str]) -> str:
    """Read ``--algo`` and refuse other packages' algorithms, except in plots: the default hyperparameters are ours."""
    chosen = "trpo"
    if script.module.startswith("rl_zoo3.plots."):
        return chosen
    for chosen in (value for name, value in values(options) if abbreviates(name, "--algo", "--a")):
        if chosen not in _ALGORITHMS:
            allowed, instead = f"{', '.join(_ALGORITHMS[:-1])} or {_ALGORITHMS[-1]}", f"python -m {script.module}"
            raise SystemExit(f"sb3-trpo: `--algo` must be {allowed}, not {chosen!r}; for others use `{instead}`")
    return chosen


def _with_single_frames(script: Script, options: Sequence[str]) -> list[str]:
    """
    Add ``frameskip:1`` to ``--env-kwargs`` for Atari games that repeat actions.

    All games but ``NoFrameskip`` repeat an action themselves, and ``AtariWrapper`` would repeat it four times more. The
    ``atari`` entry of the hyperparameters prevents that, but ``--env-kwargs`` replaces its ``env_kwargs``. A ``frameskip``
    that the user passes comes last and takes precedence.
    """
    given = dict(values(options))
    own_file = any(name == "-conf" or abbreviates(name, "--conf-file", "--c") for name in given)
    if script.module != "rl_zoo3.train" or own_file or not _skips_frames(given.get("--env", "")):
        return list(options)
    result: list[str] = []
    for option in options:
        name, _, joined = option.partition("=")
        if abbreviates(name, "--env-kwargs", "--env-") or abbreviates(name, "--eval-env-kwargs", "--eval-en"):
            result += [name, _SINGLE_FRAMES, *([joined] if joined else [])]
        else:
            result.append(option)
    return result


def _skips_frames(env_id: str) -> bool:
    """Tell whether an environment is an Atari game that repeats actions."""
    import gymnasium
    import rl_zoo3.import_envs  # noqa: F401  registers the games

    spec = gymnasium.registry.get(env_id)
    return spec is not None and "AtariEnv" in str(spec.entry_point) and spec.kwargs.get("frameskip") != 1


@contextmanager
def _arguments(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """Replace the command line that the Zoo's scripts read."""
    before = sys.argv
    sys.argv = [program, *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _mistakes_in_a_line() -> Iterator[None]:
    """End the process with a message alone if a user's mistake raised the error."""
    try:
        yield
    except (ValueError, TypeError, AssertionError) as error:
        if any(part in str(error) for part in _MISTAKES):
            raise SystemExit(f"sb3-trpo: {error}") from error
        raise

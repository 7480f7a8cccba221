"""Checks what a script of RL Zoo needs and would miss late, with an unclear error, or not at all."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sb3_trpo.command_line.options import abbreviates, asks_for_help, values


class Needed(NamedTuple):
    """
    An option that a command needs.

    :param long: its name
    :param placeholder: stands for its value in the message
    :param shortest: shortest prefix of the name that the script accepts
    :param short: its short name; empty: it has none
    """

    long: str
    placeholder: str
    shortest: str
    short: str = ""


_ENV = Needed("--env", "ENV", "--env")
_NEEDS = {
    **dict.fromkeys(("train", "tune", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub"), _ENV),
    **dict.fromkeys(("plot_train", "all_plots"), Needed("--env", "ENV", "--en", "-e")),
    "plot_from_file": Needed("--input", "FILE", "--in", "-i"),
}
"""Without ``--env`` some of the scripts silently take CartPole-v1, and plots fail with an unclear error."""

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")
_NO_WINDOW = "SDL_VIDEODRIVER"
"""With this variable pygame draws into memory."""


def check_requirements(command: str, options: Sequence[str]) -> None:
    """
    Check for options, programs and a screen that a command of RL Zoo needs.

    :param command: the command
    :param options: its options
    :raises SystemExit: naming what is missing
    """
    if asks_for_help(options):
        return
    needed = _NEEDS[command]
    if not any(_is(name, needed) for name, _ in values(options)):
        option = f"{needed.long} {needed.placeholder}"
        example = f"for example `sb3-trpo {command} --env Hopper-v5`; " if needed.long == "--env" else ""
        raise SystemExit(f"sb3-trpo: `{command}` needs `{option}`: {example}`sb3-trpo {command} --help` lists all options")
    if command == "record_training" and shutil.which("ffmpeg") is None:  # the script would first delete the last video
        raise SystemExit("sb3-trpo: `record_training` needs the program ffmpeg, which is not installed")
    if command == "enjoy" and not has_screen(sys.platform, os.environ) and not _hides(options):
        raise SystemExit(
            "sb3-trpo: `enjoy` opens a window, and there is no screen (DISPLAY is not set). To evaluate without a window, add "
            "`--no-render`. To get a film, use `MUJOCO_GL=egl sb3-trpo record_video` with the same options. Over ssh, connect "
            "with `ssh -X`"
        )


def _is(name: str, needed: Needed) -> bool:
    """Tell whether the script reads the name as the option that it needs."""
    short = bool(needed.short) and name.startswith(needed.short) and name != "-iqm"  # a separate option, not -i
    return short or abbreviates(name, needed.long, needed.shortest)


def _hides(options: Sequence[str]) -> bool:
    """Tell whether ``enjoy`` shall not open a window: it has no other option that begins with ``--no-``."""
    return any(abbreviates(name, "--no-render", "--no-") for name, _ in values(options))


def has_screen(platform: str, variables: Mapping[str, str]) -> bool:
    """
    Tell whether a window can be opened.

    :param platform: name of the system, as in ``sys.platform``
    :param variables: environment variables
    :return: False only if there is certainly no screen: on Linux without X and Wayland
    """
    return not platform.startswith("linux") or any(variables.get(name) for name in (*_SCREENS, _NO_WINDOW))

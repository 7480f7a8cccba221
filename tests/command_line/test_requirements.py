"""A command says at once which option, program or screen it misses."""

import sys

import pytest

from sb3_trpo.command_line.main import SCRIPTS, main
from sb3_trpo.command_line.requirements import has_screen


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines of the scripts that would run."""
    seen: list[list[str]] = []
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: seen.append(sys.argv))
    monkeypatch.setattr("shutil.which", lambda _: "ffmpeg")
    return seen


@pytest.mark.parametrize("command", sorted(set(SCRIPTS) - {"plot_from_file"}))
def test_without_an_environment_nothing_is_trained_or_shown(command: str, started: list[list[str]]) -> None:
    example = f"for example `sb3-trpo {command} --env Hopper-v5`"
    for options in ([], ["-n", "100"], ["--env-kwargs", "gravity:9.8"], ["--eval-freq", "5"]):
        with pytest.raises(SystemExit, match=rf"`{command}` needs `--env ENV`: {example}"):
            main([command, *options])
    for given in (["--env", "CartPole-v1"], ["--env=CartPole-v1"]):
        main([command, *given, *(["--no-render"] if command == "enjoy" else [])])
    assert [line[0] for line in started] == 2 * [f"sb3-trpo {command}"]


@pytest.mark.parametrize("options", [[], ["-l", "TRPO"], ["-l", "TRPO", "-iqm"]])
def test_plots_of_a_file_need_the_file(options: list[str], started: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match="`plot_from_file` needs `--input FILE`: `sb3-trpo plot_from_file --help`"):
        main(["plot_from_file", *options])
    for given in (["-i", "a"], ["-ia"], ["--inp", "a"]):
        main(["plot_from_file", *options, *given])
    assert len(started) == 3


@pytest.mark.parametrize("options", [["-e", "Hopper-v5"], ["-eHopper-v5"], ["--env=Hopper-v5"], ["--en", "Hopper-v5"]])
def test_required_options_of_plots_are_recognised_in_every_form(options: list[str], started: list[list[str]]) -> None:
    main(["all_plots", *options])
    assert started[0][-len(options) :] == options


def test_enjoy_without_a_screen_says_what_to_do(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    enjoy = ["enjoy", "--env", "Hopper-v5"]
    with pytest.raises(
        SystemExit, match=r"no screen \(DISPLAY is not set\)\. .*`--no-render`\. .*`MUJOCO_GL=egl sb3-trpo record"
    ):
        main(enjoy)
    with pytest.raises(SystemExit, match="no screen"):
        main([*enjoy, "--norm-reward"])
    main([*enjoy, "--no-render"])
    main(["record_video", "--env", "Hopper-v5"])
    monkeypatch.setenv("DISPLAY", ":0")
    main(enjoy)
    assert len(started) == 3


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ""}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"SDL_VIDEODRIVER": "dummy"}, True),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_screens(platform: str, variables: dict[str, str], expected: bool) -> None:
    assert has_screen(platform, variables) is expected

"""A save replaces a file whole or not at all."""

import errno
import io
import os
import re
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO

from sb3_trpo import TRPO
from sb3_trpo.saving.atomic import written_aside
from tests.toy_envs import RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0, "device": "cpu"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model's file of which ``seed`` is 0."""
    TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    return tmp_path / "model.zip"


def other() -> TRPO:
    return TRPO("MlpPolicy", RandomEnv(), **{**SMALL, "seed": 1})


def assert_unchanged(path: Path) -> None:
    assert TRPO.load(path).seed == 0
    assert [child.name for child in path.parent.iterdir()] == [path.name]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def test_an_attribute_that_cannot_be_pickled_leaves_the_file(saved: Path) -> None:
    model = other()
    model.mine = Unpicklable()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="cannot be pickled"):
        model.save(saved)
    assert_unchanged(saved)


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_file(saved: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "write":
        monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as refused:
        other().save(saved)
    assert refused.value.filename == str(saved)
    monkeypatch.undo()
    assert_unchanged(saved)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_is_written_to_directly() -> None:
    with pytest.raises(OSError, match="No space left"), written_aside("/dev/full") as file:
        file.write(b"x" * 100_000)
    with written_aside("/dev/null") as file:
        file.write(b"x")
    assert not Path("/dev/null").is_file()


def test_a_kill_in_the_middle_leaves_the_file(saved: Path) -> None:
    program = f"""
import os, signal, zipfile
from sb3_trpo import TRPO
model = TRPO.load({str(saved)!r}, seed=1)
write = zipfile.ZipFile.open
def kill(archive, name, mode="r", **kwargs):
    if name == "policy.pth" and mode == "w":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(archive, name, mode, **kwargs)
zipfile.ZipFile.open = kill
model.save({str(saved)!r})
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert TRPO.load(saved).seed == 0
    (left,) = set(saved.parent.iterdir()) - {saved}
    assert re.fullmatch(r"\.[0-9a-f]{16}\.tmp", left.name)
    other().save(saved)
    assert TRPO.load(saved).seed == 1


def test_a_file_object_receives_all_or_nothing(saved: Path) -> None:
    model, file = other(), io.BytesIO()
    model.mine = Unpicklable()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="cannot be pickled"):
        model.save(file)
    assert file.getvalue() == b""
    del model.mine  # type: ignore[attr-defined]
    file.write(b"before")
    model.save(file)
    file.seek(0)
    assert file.getvalue().startswith(b"before")
    assert TRPO.load(file).seed == 1
    with saved.open("rb") as unwritable, pytest.raises(ValueError, match="Expected a writable file"):
        model.save(unwritable)
    with pytest.raises(TypeError, match="invalid type"):
        model.save(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["model", "model.v1", "model.zip", "sub/deep/model"])
def test_names_are_those_of_sb3(name: str, tmp_path: Path) -> None:
    for algorithm, folder in ((TRPO, "ours"), (PPO, "theirs")):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model.zip").mkdir()
        model = algorithm("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16)
        if name == "model.v1":
            model.save(str(tmp_path / folder / name))
        else:
            message = "does not exist. Will create it" if "/" in name else "is a folder. Will save"
            with pytest.warns(UserWarning, match=message) as seen:
                model.save(tmp_path / folder / name)
            assert len(seen) == 1
            assert seen[0].filename == __file__ or algorithm is PPO
    ours, theirs = ({p.relative_to(tmp_path / f) for p in (tmp_path / f).rglob("*")} for f in ("ours", "theirs"))
    assert ours == theirs


def test_a_link_stays_a_link(saved: Path) -> None:
    link = saved.with_name("link.zip")
    link.symlink_to("model.zip")
    other().save(link)
    assert link.is_symlink()
    assert TRPO.load(saved).seed == 1
    link.unlink()
    link.symlink_to("new.zip")
    other().save(link)
    assert (link.is_symlink(), TRPO.load(saved.with_name("new.zip")).seed) == (True, 1)


def test_permissions_are_kept(saved: Path) -> None:
    plain = saved.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    saved.chmod(0o640)
    other().save(saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640


def test_a_file_without_permission_to_write_is_not_replaced(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to all files
    with pytest.raises(PermissionError, match=r"cannot write the file; the file is read-only: .*model\.zip'$"):
        other().save(saved)
    assert_unchanged(saved)


def failing(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Make a function of files fail for temporary ones."""

    def fail(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith(".tmp"):
            raise OSError(number, os.strerror(number), path)
        return function(path, *args, **kwargs)

    return fail


@pytest.mark.parametrize(
    ("step", "number", "kind"),
    [
        ("open", errno.EACCES, PermissionError),
        ("open", errno.EROFS, OSError),
        ("open", errno.ENOSPC, OSError),
        ("chmod", errno.EPERM, PermissionError),
        ("replace", errno.EPERM, PermissionError),
        ("replace", errno.ENAMETOOLONG, OSError),
    ],
)
def test_an_error_names_the_file_and_not_the_temporary_one(
    saved: Path, step: str, number: int, kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = other()
    if step == "open":
        monkeypatch.setattr(Path, "open", failing(Path.open, number))
    else:
        monkeypatch.setattr(os, step, failing(getattr(os, step), number))
    with pytest.raises(kind, match=re.escape(os.strerror(number))) as error:
        model.save(saved)
    monkeypatch.undo()
    assert (error.value.errno, error.value.filename) == (number, str(saved))
    assert ".tmp" not in str(error.value)
    of_folder = f"{saved.parent} must be writable, and not sticky unless the file is yours, because the file is replaced whole"
    assert (of_folder in str(error.value)) == (number in (errno.EACCES, errno.EROFS, errno.EPERM))
    assert_unchanged(saved)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to all folders")
def test_a_folder_without_permission_to_write(saved: Path) -> None:
    model = other()
    saved.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"must be writable.*because the file is replaced whole: '.*model\.zip'$"):
            model.save(saved)
    finally:
        saved.parent.chmod(0o700)
    assert_unchanged(saved)


def test_a_link_into_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    link = tmp_path / "link.zip"
    link.symlink_to("missing/model.zip")
    message = rf"there is no folder {tmp_path}/missing: '{link}'$"
    with pytest.raises(FileNotFoundError, match=message):
        other().save(link)
    assert link.is_symlink()


def test_a_link_to_itself_is_not_replaced(tmp_path: Path) -> None:
    link, back = tmp_path / "link.zip", tmp_path / "back.zip"
    link.symlink_to(back)
    back.symlink_to(link)
    with pytest.raises(OSError, match=rf"it is a link that leads back to itself: '{link}'$") as error:
        other().save(link)
    assert error.value.errno == errno.ELOOP
    assert {path.name: path.is_symlink() for path in tmp_path.iterdir()} == {"link.zip": True, "back.zip": True}


class Location:
    """A path that is neither a string nor a ``Path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_any_path_like_object(tmp_path: Path) -> None:
    other().save(Location(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert TRPO.load(Location(tmp_path / "model")).seed == 1
    PPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=16, seed=2).save(tmp_path / "ppo")
    assert TRPO.from_ppo(Location(tmp_path / "ppo"), RandomEnv(), batch_size=16).seed == 2


@pytest.mark.parametrize("letter", ["n", "ü", "字"])
def test_a_long_name_fits(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (251 // len(letter.encode())) + ".zip")
    other().save(path)
    assert TRPO.load(path).seed == 1

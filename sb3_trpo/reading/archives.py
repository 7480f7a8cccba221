"""Reads zip files within limits: no entry twice, no paths, no bombs."""

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

_FREE_BYTES = 64 * 2**20
_LARGEST_RATIO = 20
"""Entries may take this many times the bytes of the file, and 64 MiB more. SB3 does not compress what it saves."""

_BEGINNING = b"PK\x03\x04"
"""By which torch tells zip files from its older formats."""

_PLAIN_NAME = re.compile(r"[\w.\- ]+")
_FAILURES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError)


class DamagedError(ValueError):
    """Reports a zip file that cannot be read."""


def read_entries(file: Any) -> dict[str, bytes]:
    """
    Read the entries of a saved model, and check their sums.

    :param file: the file, open for reading
    :return: contents by name
    :raises ValueError: if it is no zip file, is damaged, has an entry twice or one with a path, or would take too much memory
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            check_entries(infos, _size(file))
            for info in infos:
                if not _PLAIN_NAME.fullmatch(info.filename) or set(info.filename) == {"."}:
                    raise ValueError(f"the name of its entry {info.filename!r} is a path, not a plain name")
            return {info.filename: _read(archive, info) for info in infos}
    except _FAILURES as error:
        raise ValueError(str(error)) from error


def check_entries(infos: Iterable[zipfile.ZipInfo], size: int) -> None:
    """
    Check a zip file's table of contents.

    :param infos: its entries
    :param size: the bytes of the file
    :raises ValueError: if an entry is there twice, encrypted, a link, or packed in an unusual way, or if they would take more
        memory than the file makes plausible
    """
    names: set[str] = set()
    total = 0
    for info in infos:
        name = info.filename
        if name in names:
            raise ValueError(f"its entry {name!r} is there twice")
        if info.orig_filename != name:
            raise ValueError(f"the name of its entry {name!r} is altered")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its entry {name!r} is encrypted or packed in an unusual way")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"its entry {name!r} is a link")
        names.add(name)
        total += info.file_size
        if total > _FREE_BYTES + _LARGEST_RATIO * size:
            raise ValueError(
                f"its entries up to {name!r} would take {total:,} bytes, which is too much for a file of {size:,} bytes; if "
                "you trust whoever made it, pass `trusted=True`"
            )


def rewritten(content: bytes) -> bytes:
    """
    Check a file of torch, which is a zip file, and write it anew.

    Readers differ in what they make of an odd zip file. torch reads the new one, in which there is only what was checked.

    :param content: the file
    :return: the new file; anything but a zip file as it is, because torch has older formats too
    :raises DamagedError: if it is damaged
    :raises ValueError: if it breaks a rule of :func:`check_entries`
    """
    if not content.startswith(_BEGINNING):
        return content
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as copy:
            check_entries(archive.infolist(), len(content))
            for info in archive.infolist():
                copy.writestr(info.filename, _read(archive, info))
    except _FAILURES as error:
        raise DamagedError(str(error)) from error
    return made.getvalue()


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read an entry, and not more of it than the table of contents says."""
    try:
        with archive.open(info) as entry:
            content = entry.read(info.file_size + 1)
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            raise ValueError(f"the sum of its entry {info.filename!r} is wrong") from error
        raise
    if len(content) != info.file_size:
        raise ValueError(f"its entry {info.filename!r} has another size than the file says")
    return content


def _size(file: Any) -> int:
    """Return the number of bytes of an open file, and leave its position."""
    position = file.tell()
    size = int(file.seek(0, io.SEEK_END))
    file.seek(position)
    return size

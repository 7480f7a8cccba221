"""Zip files are read within limits."""

import io
import struct
import zipfile
from typing import Any

import pytest
import torch as th

from sb3_trpo.reading import archives
from sb3_trpo.reading.archives import read_entries, rewritten
from sb3_trpo.reading.weights import read_weights


def zip_of(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.writestr(info, content)
    file.seek(0)
    return file


def altered(file: io.BytesIO, offset: int, content: bytes) -> io.BytesIO:
    """Change bytes of the last entry in the table of contents."""
    whole = bytearray(file.getvalue())
    start = whole.rindex(b"PK\x01\x02") + offset
    whole[start : start + len(content)] = content
    return io.BytesIO(bytes(whole))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entries_are_read(compression: int) -> None:
    file = zip_of(("data", b"{}"), ("policy.pth", b"x" * 1000), ("empty", b""), compression=compression)
    assert read_entries(file) == {"data": b"{}", "policy.pth": b"x" * 1000, "empty": b""}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice() -> None:
    with pytest.raises(ValueError, match="its entry 'data' is there twice"):
        read_entries(zip_of(("data", b"{}"), ("data", b"[]")))


@pytest.mark.parametrize("name", ["../data", "/data", "a/b", "..", ".", "a\\b", "C:data", "folder/", "data\n", "\x1b[2J"])
def test_an_entry_with_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="is a path, not a plain name"):
        read_entries(zip_of(("data", b"{}"), (name, b"")))


def test_an_entry_whose_name_is_cut() -> None:
    """zipfile reads a name up to its first NUL; another reader may not."""
    file = zip_of(("data", b"{}"), ("policy", b""))
    whole = file.getvalue().replace(b"policy", b"pol\0cy")
    with pytest.raises(ValueError, match="the name of its entry 'pol' is altered"):
        read_entries(io.BytesIO(whole))


def test_an_entry_that_is_a_link() -> None:
    with pytest.raises(ValueError, match="its entry 'data' is a link"):
        read_entries(altered(zip_of(("data", b"/etc/passwd")), 38, struct.pack("<I", 0o120777 << 16)))


def test_an_entry_that_is_encrypted() -> None:
    with pytest.raises(ValueError, match="its entry 'data' is encrypted or packed in an unusual way"):
        read_entries(altered(zip_of(("data", b"{}")), 8, b"\x01\x00"))


def test_an_entry_that_is_packed_in_an_unusual_way() -> None:
    with pytest.raises(ValueError, match="its entry 'data' is encrypted or packed in an unusual way"):
        read_entries(zip_of(("data", b"{}"), compression=zipfile.ZIP_BZIP2))


def test_a_bomb() -> None:
    file = altered(zip_of(("data", b"{}")), 24, struct.pack("<I", 4_000_000_000))
    with pytest.raises(ValueError, match=r"its entries up to 'data' would take 4,000,000,000 bytes, .*`trusted=True`"):
        read_entries(file)


def test_many_entries_are_a_bomb_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 100_000)
    file = zip_of(*((f"{n}.pth", b"\0" * 50_000) for n in range(8)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"would take 1?[0-9]{2},000 bytes"):
        read_entries(file)
    with pytest.raises(ValueError, match="its entries up to"):
        rewritten(file.getvalue())


def test_a_file_of_torch_that_only_torch_can_read_is_refused() -> None:
    """Its entries name a version of the format that Python does not know, and torch does not look at."""
    file = io.BytesIO()
    th.save({"weight": th.zeros(10_000)}, file)
    content = file.getvalue()
    assert content[:4] == b"PK\x03\x04"
    assert read_weights(rewritten(content))["weight"].shape == (10_000,)
    newer = content.replace(b"PK\x01\x02\x00\x00\x00\x00", b"PK\x01\x02\x00\x00\xc8\x00")
    assert newer != content
    assert th.load(io.BytesIO(newer), weights_only=True)["weight"].shape == (10_000,)
    for read in (rewritten, read_weights):
        with pytest.raises(ValueError, match="zip file version"):
            read(newer)


def test_torch_reads_the_entries_that_were_checked() -> None:
    """The file has two tables of contents: torch finds the first, and Python the second."""
    outer, inner = io.BytesIO(), io.BytesIO()
    for file, value in ((outer, 1.0), (inner, 2.0)):
        th.save({"weight": th.full((1,), value)}, file)
    content = outer.getvalue() + inner.getvalue()
    assert th.load(io.BytesIO(content), weights_only=True)["weight"].item() == 1.0
    assert read_weights(content)["weight"].item() == 2.0


def test_an_entry_that_is_larger_than_it_says() -> None:
    whole = zip_of(("data", b"\0" * 1000), compression=zipfile.ZIP_DEFLATED)
    small = altered(whole, 24, struct.pack("<I", 10))
    with pytest.raises(ValueError, match="data"):
        read_entries(small)


def test_a_file_that_is_compressed_well_is_read() -> None:
    """SB3's text compresses five times, and fresh moments of Adam to nothing."""
    content = {"data": b'{"a": 1}' * 10_000, "policy.optimizer.pth": b"\0" * 1_000_000}
    assert read_entries(zip_of(*content.items(), compression=zipfile.ZIP_DEFLATED)) == content


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + b"\0" * 10])
def test_what_is_no_zip_file(content: bytes) -> None:
    with pytest.raises(ValueError, match="File is not a zip file"):
        read_entries(io.BytesIO(content))
    assert rewritten(content) == content  # torch will refuse it


def test_the_position_of_an_open_file_does_not_matter() -> None:
    file: Any = zip_of(("data", b"{}"))
    file.seek(5)
    assert read_entries(file) == {"data": b"{}"}

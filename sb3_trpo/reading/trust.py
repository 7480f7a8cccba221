"""Whether files are trusted without being asked for each: only within a block that says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALL = ContextVar("trust_all_files", default=False)


@contextmanager
def all_files_trusted(trusted: bool = True) -> Iterator[None]:
    """
    Load files within the block as if ``trusted=True`` was passed.

    :param trusted: False changes nothing
    """
    token = _ALL.set(_ALL.get() or trusted)
    try:
        yield
    finally:
        _ALL.reset(token)


def is_trusted(trusted: bool) -> bool:
    """
    Tell whether a file is trusted.

    :param trusted: the argument that the user passed
    :return: whether it, or a block around it, says so
    """
    return trusted or _ALL.get()

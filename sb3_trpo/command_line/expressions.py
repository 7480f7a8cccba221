"""Explains values on the command line that are no Python expressions: the Zoo evaluates ``NAME:VALUE``."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def explained(store: Callable[..., None]) -> Callable[..., None]:
    """
    Make the Zoo's ``StoreDict`` say which value it cannot read, and how to write it.

    :param store: ``StoreDict.__call__``
    :return: the patched method
    """

    def patched(
        action: Any, parser: argparse.ArgumentParser, namespace: Any, given: Sequence[str], option: str | None = None
    ) -> None:
        settings: dict[str, Any] = {}
        for text in given:
            one = argparse.Namespace()
            try:
                store(action, parser, one, [text], option)
            except Exception as error:  # the text is evaluated, so anything can be raised
                raise SystemExit(f"sb3-trpo: {_message(str(option), text, error)}") from error
            settings |= getattr(one, action.dest)
        setattr(namespace, action.dest, settings)

    return patched


def _message(option: str, text: str, error: Exception) -> str:
    name, colon, value = text.partition(":")
    if not colon:
        return f"`{option}` needs NAME:VALUE, not {text!r}"
    reason = f"{type(error).__name__}: {error}".partition(" (")[0]  # without the place in the text, which has one line
    right = f"{option} \"{name}:'{value}'\""
    return f"`{option} {text}`: {value!r} is no Python value ({reason}); text needs quotes within quotes: {right}"

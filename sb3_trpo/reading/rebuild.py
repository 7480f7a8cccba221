"""Rebuilds plain data from recipes: each call is one that this package knows, and is made by its own code."""

from collections.abc import Callable
from typing import Any

from sb3_trpo.reading import arrays, objects, spaces
from sb3_trpo.reading.classes import find_class
from sb3_trpo.reading.pickles import SCALARS, Call, Name, NotRebuiltError, Stored, parts, read_pickle
from sb3_trpo.reading.text import printable

_MAKERS = {**arrays.MAKERS, **spaces.MAKERS, **objects.MAKERS}
_UNFINISHED = object()
_MOST_PARTS = 10**7
"""A value may have this many parts, each counted as often as it occurs: a few shared ones can stand for 2**100 of them."""


def rebuild(recipe: Any, read: Callable[[str], bytes] | None = None) -> Any:
    """
    Rebuild what a pickle describes, without running anything that it names.

    :param recipe: a result of :func:`~sb3_trpo.reading.pickles.read_pickle`
    :param read: gives the content of an entry beside the pickle, in which the numbers of tensors are
    :return: numbers, strings, containers, arrays, tensors, spaces, schedules, statistics and known classes
    :raises NotRebuiltError: if there is anything else in it
    """
    try:
        return _Builder(read).build(recipe)
    except NotRebuiltError:
        raise
    except RecursionError as error:
        raise NotRebuiltError("it is nested too deeply") from error
    except Exception as error:  # of NumPy, torch or Gymnasium, for values that they refuse
        raise NotRebuiltError(f"it is damaged ({type(error).__name__}: {printable(str(error), 200)})") from error


def load_pickle(content: bytes) -> Any:
    """
    Read a pickle and rebuild its value; see :func:`rebuild`.

    :param content: the pickle
    :return: the value
    :raises NotRebuiltError: if there is something in it that cannot be rebuilt
    """
    return rebuild(read_pickle(content))


def unknown_calls(recipe: Any) -> list[str]:
    """
    List what a pickle would call or look up, apart from what is rebuilt here.

    :param recipe: a result of :func:`~sb3_trpo.reading.pickles.read_pickle`
    :return: full names, each once, in alphabetical order
    """
    return sorted({part.path for part in parts(recipe) if isinstance(part, Call | Name) and not _is_known(part)})


def _is_known(part: Call | Name) -> bool:
    """Tell whether a call or name is one that is rebuilt here; the code of a function is not, whatever its name."""
    if isinstance(part, Call):
        if part.path == "builtins.getattr":
            return _succeeds(lambda: rebuild(part))
        return part.path in _MAKERS and part.path not in objects.FUNCTION_MAKERS
    kinds = part.path in ("numpy.ndarray", "stable_baselines3.common.policies.BasePolicy", *_MAKERS)
    kinds = kinds or part.module.startswith("numpy.random.") or (part.module == "torch" and part.name.endswith("Storage"))
    return kinds or _succeeds(lambda: find_class(part))


def _succeeds(make: Callable[[], Any]) -> bool:
    try:
        make()
    except NotRebuiltError:
        return False
    return True


class _Builder:
    """Rebuilds each part of a recipe once, so that what is shared stays shared."""

    def __init__(self, read: Callable[[str], bytes] | None) -> None:
        self.read = read
        self.made: dict[int, Any] = {}
        self.counts: dict[int, int] = {}
        self.count = 0

    def build(self, recipe: Any) -> Any:
        """
        Rebuild one part.

        :param recipe: the part
        :return: its value
        :raises NotRebuiltError: if it is not plain data
        """
        before, self.count = self.count, self.count + 1
        if isinstance(recipe, (*SCALARS, bytearray)):
            return recipe
        key = id(recipe)
        if key not in self.made:
            self.made[key] = _UNFINISHED
            self.made[key] = self._make(recipe)
            self.counts[key] = self.count - before
        elif self.made[key] is _UNFINISHED:
            raise NotRebuiltError("it contains itself")
        else:
            self.count = before + self.counts[key]
        if self.count > _MOST_PARTS:
            raise NotRebuiltError("it repeats its parts so often that it would have no end")
        return self.made[key]

    def _make(self, recipe: Any) -> Any:
        if isinstance(recipe, list | tuple):
            return type(recipe)(map(self.build, recipe))
        if isinstance(recipe, dict):
            return {key: self.build(value) for key, value in recipe.items()}
        if isinstance(recipe, set | frozenset):
            return recipe
        if isinstance(recipe, Name):
            return find_class(recipe)
        if isinstance(recipe, Stored) and self.read is not None:
            return arrays.stored_tensor(recipe, self.read)
        if isinstance(recipe, Call):
            return self._call(recipe)
        raise NotRebuiltError("it refers to something outside the file")

    def _call(self, call: Call) -> Any:
        make = _MAKERS.get(call.path)
        if make is None:
            raise NotRebuiltError(f"it would call {call.path}")
        takes = ("collections.deque", "collections.OrderedDict")
        if (call.elements or call.items) and call.path not in takes:
            raise NotRebuiltError(f"it adds elements to the result of {call.path}")
        return make(call, self.build)

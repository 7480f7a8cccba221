"""Functions are replaced wherever they are called from, and put back; a function that has moved is an error."""

import sys
from types import ModuleType
from typing import Any

import pytest

from benchmarks.common.patching import replaced, resolve


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with a function, a class, and a module that has imported the function by name."""
    names = ("pack", "pack.home", "pack.user")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    pack, home, user = (sys.modules[name] for name in names)
    exec(
        "def double(x):\n    return 2 * x\nclass Box:\n    def get(self):\n        return 1\nclass Sub(Box):\n    pass",
        vars(home),
    )
    exec("from pack.home import double\ndef use(x):\n    return double(x)", vars(user))
    vars(pack).update(home=home, user=user)
    return pack


def plus_one(function: Any) -> Any:
    return lambda *args: function(*args) + 1


def test_a_function_is_replaced_where_it_was_imported_by_name(package: ModuleType) -> None:
    with replaced("pack.home.double", plus_one):
        assert (package.user.use(3), package.home.double(3)) == (7, 7)
    assert (package.user.use(3), package.home.double(3)) == (6, 6)


def test_a_method_is_replaced_for_its_subclasses_too(package: ModuleType) -> None:
    with replaced("pack.home.Box.get", plus_one):
        assert (package.home.Box().get(), package.home.Sub().get()) == (2, 2)
    assert (package.home.Box().get(), package.home.Sub().get()) == (1, 1)


def test_an_error_puts_the_function_back(package: ModuleType) -> None:
    with pytest.raises(KeyError), replaced("pack.home.double", plus_one):
        raise KeyError
    assert package.user.use(3) == 6


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pack.home.triple", "pack.home does not define a function 'triple'"),
        ("pack.home.Box.put", "Box does not define a function 'put'"),
        ("pack.home.Sub.get", "Sub does not define a function 'get'"),
        ("pack.home.Crate.get", "pack.home has no 'Crate'"),
        ("pack.away.double", "pack has no 'away'"),
    ],
)
def test_a_function_that_has_moved_is_an_error(package: ModuleType, name: str, reason: str) -> None:
    with pytest.raises(LookupError, match=f"`{name}` has moved: {reason}"):
        resolve(name)

"""A file imports only from its folder and from the folders below; the contributing page states the same order."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sb3_trpo

FLOORS = [
    ["checks", "originals"],
    ["step"],
    ["distributions", "batch", "reading"],
    ["policies", "envs"],
    ["actor", "arguments", "snapshots"],
    ["rollout", "update", "saving"],
    ["export"],
    ["algorithms"],
    ["zoo"],
    ["command_line"],
]
"""From the ground up. Folders on one floor do not import each other."""
AT_THE_DOOR = {"sb3_trpo", "sb3_trpo.__main__", "sb3_trpo.envpool", "sb3_trpo.plots"}
"""Files outside the folders: names for users, who may import everything."""
ROOT = Path(sb3_trpo.__file__).parent


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def own_imports(name: str, path: Path) -> Iterator[str]:
    """Find the modules of the package that a file imports: absolute, relative, and by name at run time."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def arrows(name: str) -> set[str]:
    """The modules of the package that one of them imports."""
    found = {imported for imported in own_imports(name, MODULES[name]) if imported.split(".")[0] == "sb3_trpo"}
    return {imported for imported in found if imported in MODULES} - {name}


def folder(name: str) -> str:
    return name.split(".")[1]


def test_every_folder_is_on_a_floor() -> None:
    assert {folder(name) for name in MODULES if name not in AT_THE_DOOR} == {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in AT_THE_DOOR])
def test_imports_point_downward(name: str) -> None:
    height = next(i for i, floor in enumerate(FLOORS) if folder(name) in floor)
    below = {other for floor in FLOORS[:height] for other in floor}
    allowed = {folder(name)} | below
    assert {imported for imported in arrows(name) if imported == "sb3_trpo" or folder(imported) not in allowed} == set()


def test_no_file_imports_itself_through_others() -> None:
    inside = {name: arrows(name) for name in MODULES if name not in AT_THE_DOOR}
    assert set(TopologicalSorter(inside).static_order()) >= set(inside)  # raises CycleError where there is one


@pytest.mark.parametrize(
    "source",
    [
        "from sb3_trpo.algorithms.trpo import TRPO",
        "from sb3_trpo.algorithms import trpo",
        "import sb3_trpo.algorithms.trpo as t",
        "from ..algorithms import trpo",
        "from ..algorithms.trpo import TRPO",
        "import importlib\nimportlib.import_module('sb3_trpo.algorithms.trpo')",
        "def late():\n    from sb3_trpo.algorithms.trpo import TRPO",
    ],
)
def test_every_kind_of_import_is_seen(source: str, tmp_path: Path) -> None:
    path = tmp_path / "flat.py"
    path.write_text(source)
    assert any(name.startswith("sb3_trpo.algorithms.trpo") for name in own_imports("sb3_trpo.step.flat", path))


def test_the_contributing_page_states_the_rule() -> None:
    page = (ROOT.parent / "docs" / "contributing.md").read_text()
    (rule,) = re.findall(r"^```text\n(checks, originals < .*?)\n```", page, re.MULTILINE | re.DOTALL)
    assert [re.findall(r"\w+", floor) for floor in rule.split("<")] == FLOORS


def test_tests_mirror_the_folders() -> None:
    tests = ROOT.parent / "tests"
    folders = {path.name for path in tests.iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert {path.name for path in ROOT.iterdir() if any(path.glob("[a-z]*.py"))} <= folders
    for path in tests.glob("*/test_*.py"):
        source = path.parent.name, path.stem.removeprefix("test_")
        known = (ROOT / source[0]).is_dir() or source[0] in ("benchmarks", "examples")
        assert known, f"{path} belongs to no folder of the package"


def test_simulators_are_imported_only_on_use() -> None:
    command = (
        "import sys, sb3_trpo; print([name for name in ('mujoco', 'ale_py', 'envpool', 'rl_zoo3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("sb3_trpo.step.")])
def test_the_step_imports_only_torch(name: str) -> None:
    imported = {module.split(".")[0] for module in own_imports(name, MODULES[name])}
    assert imported <= {"sb3_trpo", "torch", *sys.stdlib_module_names}

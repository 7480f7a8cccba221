"""A lower layer never imports a higher one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_trpo

LAYERS = [
    [
        "flat",
        "clipped_gaussian",
        "mlp",
        "batch",
        "finite",
        "vec_env",
        "attributes",
        "hyperparameters",
        "advantages",
        "adam",
        "hub",
        "mends",
    ],
    ["image_normalization", "simulator"],
    ["kl", "cnn", "policies", "envpool", "checkpoints"],
    ["plain", "observations", "running_statistics"],
    ["actor", "trust_region", "probe", "network", "critic"],
    ["surrogate", "fisher", "recorder"],
    ["rollout"],
    ["trpo"],
    ["vine"],
    ["__init__", "zoo"],
    ["__main__"],
]
FOLDER = Path(sb3_trpo.__file__).parent


def own_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sb3_trpo":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sb3_trpo.")}
    return found


def test_every_file_has_its_layer() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize("name", [name for layer in LAYERS for name in layer])
def test_imports_point_downward(name: str) -> None:
    height = next(i for i, layer in enumerate(LAYERS) if name in layer)
    below = {other for layer in LAYERS[:height] for other in layer}
    assert own_imports(FOLDER / f"{name}.py") <= below


def test_simulators_are_imported_when_they_are_asked_for() -> None:
    command = (
        "import sys, sb3_trpo; print([name for name in ('mujoco', 'ale_py', 'envpool', 'rl_zoo3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_numerics_know_nothing_of_sb3() -> None:
    for name in ("flat", "mlp", "trust_region"):
        assert "stable_baselines3" not in (FOLDER / f"{name}.py").read_text()

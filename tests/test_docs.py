"""The Python blocks of the docs and the README run as they are, and the code that the docs name exists."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import sb3_trpo
from sb3_trpo.arguments.hyperparameters import hyperparameter_names

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "SECURITY.md"]
BLOCK = re.compile(r"(<!-- (?:not run|needs [\w ]+) -->\s*)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"<!-- needs ([\w ]+) -->")


def blocks(page: Path) -> list[str]:
    return [code for mark, code in BLOCK.findall(page.read_text()) if not mark]


def blocks_that_need(page: Path) -> list[tuple[tuple[str, ...], str]]:
    """The blocks that need other libraries, with the names of these modules; each is complete in itself."""
    found = ((NEEDS.match(mark), code) for mark, code in BLOCK.findall(page.read_text()))
    return [(tuple(needs[1].split()), code) for needs, code in found if needs]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    for code in blocks(page):
        exec(compile(code, page.name, "exec"), namespace)
    assert namespace.keys() & {"TRPO", "RecurrentTRPO", "VineTRPO", "MaskableTRPO", "BetaFamily"}


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize(
    ("modules", "code"),
    [
        pytest.param(*block, id=f"{page.name}-{'-'.join(block[0])}-{i}")
        for page in PAGES
        for i, block in enumerate(blocks_that_need(page))
    ],
)
def test_examples_with_other_libraries_run(
    modules: tuple[str, ...], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), namespace)
    assert "TRPO" in namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_code_exists(page: Path) -> None:
    for file, name in re.findall(r"(?<!` )`([\w/]+\.py):([\w.]+)`", page.read_text()):
        source = (Path(sb3_trpo.__file__).parent / file).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(?:def|class) {part}\b|^{part}\b", source, re.MULTILINE), f"{file}:{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        if anchor:
            text = target.read_text()
            headings = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
            anchors = {heading.replace(" ", "-") for heading in headings} | set(re.findall(r"^\((\S+)\)=", text, re.MULTILINE))
            assert anchor in anchors, f"{file}#{anchor}"


def test_every_log_key_is_documented() -> None:
    page = (ROOT / "docs" / "trpo.md").read_text()
    sources = {path.name: path.read_text() for path in Path(sb3_trpo.__file__).parent.rglob("*.py")}
    places = {name: set(re.findall(r'"((?:train|time)/\w+)"', source)) for name, source in sources.items()}
    keys = set().union(*places.values())
    assert len(places["log.py"]) > 10
    assert keys - places["log.py"] == {"time/collect_seconds"}  # one file logs the update
    assert keys == set(re.findall(r"^\| `((?:train|time)/\w+)`", page, re.MULTILINE)) - {"train/learning_rate"}


def parameter_list() -> str:
    """Write TRPO's arguments as a Markdown table, from its signature and its docstring."""
    parameters = inspect.signature(sb3_trpo.TRPO).parameters
    described = re.findall(r":param (\w+): (.*?)(?=\n:|\Z)", inspect.getdoc(sb3_trpo.TRPO) or "", re.DOTALL)
    rows = ["| Argument | Default | Meaning |", "|---|---|---|"]
    for name, text in described:
        if name.startswith("_"):
            continue
        default = parameters[name].default
        value = "" if default is inspect.Parameter.empty else f"`{default!r}`".replace("'", '"')
        text = re.sub(r"\s*\(:mod:`[^`]*`\)", "", text)
        text = re.sub(r":class:`~?([\w.]*\.)?(\w+)`", r"`\2`", " ".join(text.split())).replace("``", "`")
        rows.append(f"| `{name}` | {value} | {text} |")
    return "\n".join(rows)


def test_the_parameter_list_is_the_docstring() -> None:
    table = parameter_list()
    assert len(table.splitlines()) > 30
    assert table in (ROOT / "docs" / "trpo.md").read_text(), f"docs/trpo.md needs this table:\n{table}"


def test_every_public_name_is_in_the_reference() -> None:
    index = (ROOT / "docs" / "api.md").read_text()
    signatures = (ROOT / "docs" / "signatures.rst").read_text()
    names = [name for name in sb3_trpo.__all__ if name != "__version__"]
    assert [name for name in names if f"`{name}`" not in index] == []
    policies = set(sb3_trpo.policies.__all__)  # listed by automodule
    objects = [name for name in names if name not in policies]
    assert [name for name in objects if not re.search(rf"::.*\b{name}$", signatures, re.MULTILINE)] == []


def fenced_lines(page: Path, language: str) -> list[str]:
    code = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in code for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_code_are_not_cut(page: Path) -> None:
    assert [line for line in fenced_lines(page, "bash") if len(line) > 92] == []
    assert [line for line in fenced_lines(page, "python") if len(line) > 78] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


def test_every_page_is_in_the_table_of_contents() -> None:
    pages = {page.stem for page in PAGES if page.parent.name == "docs"} - {"index"}
    index = (ROOT / "docs" / "index.md").read_text()
    listed = re.findall(r"^(\w+)$", "\n".join(re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL)), re.MULTILINE)
    assert pages | {"signatures"} == set(listed)
    assert len(listed) == len(set(listed))


def test_pages_for_github_have_no_directives() -> None:
    for name in ("trpo.md", "api.md"):
        assert "```{" not in (ROOT / "docs" / name).read_text(), name


def test_every_hyperparameter_is_documented() -> None:
    doc = sb3_trpo.TRPO.__doc__ or ""
    assert all(f":param {name}:" in doc for name in hyperparameter_names())

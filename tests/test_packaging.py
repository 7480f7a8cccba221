"""What the package says about itself agrees: versions, checks, and a description that needs no repository."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import sb3_trpo

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def description(text: str) -> str:
    """Apply the substitutions of the build, as its plugin does."""
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


def test_every_place_has_the_same_version() -> None:
    version = PROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sb3_trpo.__version__


def test_every_python_that_is_promised_is_tested() -> None:
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    runs = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert sorted({run["python"] for run in runs}) == versions
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert str(workflow("tests")["jobs"]["lowest"]["steps"]).count("make test-lowest") == 1
    assert "--resolution lowest-direct" in (ROOT / "Makefile").read_text()


def test_every_requirement_has_a_lowest_version() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    names = [each for group in (PROJECT["project"]["dependencies"], *extras.values()) for each in group]
    assert [each for each in names if ">=" not in each] == ["gymnasium[box2d]"]  # its version is among the dependencies


def test_the_description_has_no_link_into_the_repository() -> None:
    text = description((ROOT / "README.md").read_text())
    assert len(text) > 1_000
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    assert re.findall(r"(?:src|href)=\"(?!https?:)", text) == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("see [the docs](docs/a.md#b), and [SB3](https://sb3.test)", "see the docs, and [SB3](https://sb3.test)"),
        ("![film](docs/film.gif) ![badge](https://badge.test/x.svg)", " ![badge](https://badge.test/x.svg)"),
        ('<img width="9" src="docs/a.png"> <img src="https://a.test/a.png">', ' <img src="https://a.test/a.png">'),
        ('<a href="docs/a.md">a\nb</a> <a href="https://a.test">c</a>', 'a\nb <a href="https://a.test">c</a>'),
        ("[part](#part)", "part"),
    ],
)
def test_pictures_go_and_the_text_of_links_stays(written: str, shown: str) -> None:
    assert description(written) == shown


def test_commits_are_checked_as_make_lint_does() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for repository in hooks for hook in repository["hooks"]] == ["make lint"]


def test_a_release_needs_no_token_and_comes_from_a_tag() -> None:
    release = workflow("release")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in str(release)


def test_links_between_the_community_files_lead_somewhere() -> None:
    for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "examples/README.md"):
        page = ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), target

"""Sphinx configuration: MyST pages, the furo theme, autodoc for the class."""

from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "sb3-trpo"
author = "The sb3-trpo developers"
copyright = author
release = version = installed_version("sb3-trpo")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_fence_as_directive = ["math"]  # GitHub draws these fences as equations too

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"sb3-trpo {release}"

# every reference to this package resolves; those to other packages are not looked up, so that the build needs no network
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(stable_baselines3|torch|th|gymnasium|gym|numpy|np|optuna|onnx|onnxruntime)\..*"),
    (r"py:.*", r"(collections|os|pathlib|io|typing|types|argparse|enum)\..*"),
    (r"py:.*", r"VecEnv|BaseCallback|ActorCriticPolicy|GymEnv"),  # SB3's, in quotes in its own signatures
    (r"py:.*", r"sb3_trpo\..*\.([A-Z]|Self\w+|_\w+|SeparateExtractors|SafelyLoaded)"),  # type variables and base classes
]


def _link_files(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to Markdown files outside of these pages download them."""
    source[0] = source[0].replace("](../", "](path:../")


def setup(app: Sphinx) -> None:
    """Connect the changes of the sources."""
    app.connect("source-read", _link_files)

"""Sphinx configuration: MyST pages, the furo theme, autodoc for the class."""

from importlib.metadata import version as installed_version

project = "sb3-trpo"
author = "the sb3-trpo contributors"
copyright = author
release = version = installed_version("sb3-trpo")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"sb3-trpo {release}"

"""Sphinx's configuration: the pages of this repository as a site. ``make docs`` builds it.

The source directory is the repository, because README.md and CHANGELOG.md are pages as well.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import django
from django.conf import settings
from pygments.lexers import get_all_lexers
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

_ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(\w+)$", re.MULTILINE)
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]

# The names that api.rst promises are imported, and models need the apps that they belong to.
_CONTRIB = "beanstalk_dispatch.contrib"
settings.configure(
    INSTALLED_APPS=["beanstalk_dispatch", f"{_CONTRIB}.outbox", f"{_CONTRIB}.results"]
)
django.setup()

project = _PROJECT["name"]
author = "The contributors"
copyright = author  # noqa: A001 - Sphinx's name for it
html_title = project

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/**.md", "docs/*.rst", "docs/images/*"]
root_doc = "docs/index"
html_theme = "furo"
html_static_path = ["static"]
html_extra_path = ["root"]  # the address of the site leads to docs/
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_theme_options = {
    "source_repository": _PROJECT["urls"]["Source"],
    "source_branch": "main",
    "source_directory": "",
}

# A heading's anchor is the one that GitHub gives it, so links work in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app: Sphinx) -> None:
    """Show blocks whose language Pygments does not know as they are.

    The tests of the documentation tell blocks apart by their language, and have some of their own.
    """
    pages = [*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md")]
    languages = {name for page in pages for name in _FENCE.findall(page.read_text())}
    for language in languages - {alias for lexer in get_all_lexers() for alias in lexer[1]}:
        app.add_lexer(language, TextLexer)
    app.add_lexer("procfile", TextLexer)  # Pygments knows one that takes no options
    app.add_lexer("hcl", TextLexer)  # Pygments knows one that fails on some expressions

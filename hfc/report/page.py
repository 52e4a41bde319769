"""A report as one page of HTML that needs nothing but itself."""

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hfc import provenance
from hfc.report import words
from hfc.report.document import Document

ENVIRONMENT = Environment(
    loader=PackageLoader("hfc.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


ENVIRONMENT.filters |= {"headed": words.headed, "noted": words.noted, "anchor": words.anchor}


def html(document: Document) -> str:
    """Write the page. Its policy allows no request and no script but its own."""
    return rendered("report.html", document.title, _source("page.js"), document=document, words=words.WORDS)


def rendered(template: str, title: str, script: str = "", **contents: object) -> str:
    """Write a page of a template."""
    style = _source("page.css") + _source("figure.css")
    return ENVIRONMENT.get_template(template).render(
        title=title,
        made=_made(),
        style=Markup(style),
        style_hash=_hash_of(style),
        script=Markup(script),
        script_hash=_hash_of(script),
        **contents,
    )


def figure_style() -> str:
    """Read the colours of a drawing that stands by itself."""
    return _source("figure.css")


def _made() -> str:
    """Name the program that made the report."""
    code = provenance.code()
    name = f"commit {provenance.short(code['commit'])}" if code["commit"] else f"code {code['digest'][:12]}"
    return f"Made by hfc {code['version']}, {name}."


def _source(name: str) -> str:
    assert ENVIRONMENT.loader
    return ENVIRONMENT.loader.get_source(ENVIRONMENT, name)[0]


def _hash_of(text: str) -> str:
    """Compute the hash by which a page's policy allows a style or script."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

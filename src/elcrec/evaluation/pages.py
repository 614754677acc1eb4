"""HTML pages, each one self-contained file that needs no network.

jinja2 and matplotlib are the extra `report`, imported when a page is written.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from elcrec.artifacts import atomic_file

INSTALL = "install it with `pip install elcrec[report]`"


def can_write_pages() -> bool:
    """Return whether the extra `report` is installed."""
    return all(find_spec(name) for name in ("jinja2", "matplotlib"))


def render(template: str, path: Path, context: Mapping[str, Any], *, folder: Path | None = None) -> None:
    """Render a template of this package to `path`; HTML is escaped and may show when it was `created`.

    `folder` holds further templates, which may extend and import those of this package.
    """
    import jinja2  # noqa: PLC0415 - needed only after everything is measured

    own = [] if folder is None else [jinja2.FileSystemLoader(folder)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*own, jinja2.PackageLoader("elcrec.evaluation")]),
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template).render(context, created=datetime.now(UTC))
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

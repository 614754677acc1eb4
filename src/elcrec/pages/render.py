"""Write a page: one self-contained file that asks the network for nothing.

jinja2 and matplotlib are the extra `report`, imported when a page is written; the page of validation needs jinja2
alone, the extra `validate`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from elcrec.artifacts import atomic_file
from elcrec.errors import UserError

INSTALL = "install it with `pip install elcrec[report]`"


def can_write_pages() -> bool:
    """Return whether the extra `report` is installed."""
    return all(find_spec(name) for name in ("jinja2", "matplotlib"))


def render(template: str, path: Path, context: Mapping[str, Any], *, folder: Path | None = None) -> None:
    """Write a template of this package to `path`; HTML is escaped and may say when it was `created`, by default now.

    `folder` holds further templates, which may extend and import those of this package.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - needed only after everything is measured
    except ImportError as error:
        raise UserError("the report needs jinja2", fix="install it with `pip install elcrec[validate]`") from error
    own = [] if folder is None else [jinja2.FileSystemLoader(folder)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*own, jinja2.PackageLoader("elcrec.pages")]),
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template).render({"created": datetime.now(UTC), **context})
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

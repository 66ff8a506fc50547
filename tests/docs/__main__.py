"""Render the generated parts of README and docs: `python -m tests.docs`, which is `make docs`."""

from tests.docs import reference, tables
from tests.docs.pages import pages, rendered

if __name__ == "__main__":
    tables.write_images()
    for page in pages():
        page.write_text(rendered(page, {**reference.RENDERERS, **tables.RENDERERS}), encoding="utf-8", newline="\n")

"""Writes the tables of inputs and outputs into all help pages, from the schemas, and the pictures that they show.

COMFYUI_PATH=... python tests/help_pages.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import conftest  # noqa: E402, F401
from support import help_pages, help_pictures  # noqa: E402

from pack.nodes import NODES  # noqa: E402

for schema in (node.GET_SCHEMA() for node in NODES):
    path = help_pages.path_of(schema)
    page = path.read_text(encoding="utf-8")
    made = help_pages.with_tables(page, schema)
    template = help_pictures.SHOWN.get(schema.node_id.removeprefix("Personalization"))
    if template:
        made = help_pictures.with_picture(made, template)
    if made != page:
        path.write_text(made, encoding="utf-8")
        print(path.name)

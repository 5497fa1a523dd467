"""The tables of help pages: names, types, defaults and ranges as the schema says them, with the page's own words."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "nodes" / "web" / "docs"
KINDS = {"FLOAT": "number", "INT": "whole number", "STRING": "text", "BOOLEAN": "on or off", "COMBO": "choice"}
# what a list of files shows, which is another on every machine
LISTS = {
    "edlora_file": "files in `models/loras`",
    "krona_file": "files in `models/loras`",
    "delta_file": "files in `models/loras`",
    "concept_file": "files in `models/embeddings`",
    "prospect_file": "files in `models/embeddings`",
    "mapper_file": "files in `models/embeddings`",
    "perfusion_file": "files in `models/embeddings`",
    "sam_file": "files in `models/sams`",
    "npnet_file": "files in `models/npnet`",
    "adapter_file": "files in `models/ipadapter`",
    "adapter_set": "sets in `models/resadapter`",
    "face_models": "packs in `models/insightface`",
    "lora": "LoRAs of the pack",
}
INPUTS, OUTPUTS = ("input", "type", "default", "range", "meaning"), ("output", "type", "meaning")
# the largest seed that the host's widget takes
LARGEST = 2**64 - 1


def path_of(schema):
    """Where the help page of a node lies."""
    return FOLDER / f"{schema.node_id}.md"


def with_tables(page, schema):
    """The page with its tables of inputs and outputs as the schema says; what things mean stays in the page's words.

    An input or output that the page has no row for gets its tooltip.
    """
    page = _with_table(page, "Input", INPUTS, [(one.id, _input_cells(one), one.tooltip) for one in schema.inputs])
    rows = [(one.display_name or one.get_io_type(), [_kind(one)], one.tooltip) for one in schema.outputs]
    return _with_table(page, "Output", OUTPUTS, rows)


def _input_cells(one):
    kind = _kind(one)
    kind += ", optional" if one.optional and one.get_io_type() not in KINDS else ""
    default = getattr(one, "default", None)
    return [kind, "" if one.id in LISTS else _said(default), _range(one)]


def _kind(one):
    return KINDS.get(one.get_io_type(), one.get_io_type())


def _range(one):
    if one.id in LISTS:
        return LISTS[one.id]
    if options := getattr(one, "options", None):
        return ", ".join(f"`{option}`" for option in options)
    low, high = getattr(one, "min", None), getattr(one, "max", None)
    return "" if low is None or high is None else f"{_said(low)} to {_said(high)}"


def _said(value):
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return f"`{value}`"
    return "2^64 - 1" if value == LARGEST else f"{value:.10g}" if isinstance(value, float) else str(value)


def _with_table(page, heading, columns, rows):
    if not rows:
        return page
    section = re.search(rf"^## {heading}s?\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    if section is None:
        raise ValueError(f"{page.splitlines()[0]} has no section ## {heading}s")
    words = _words(section[1], columns)
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([f"`{name}`", *cells, words.get(name, tooltip)]) for name, cells, tooltip in rows]
    table, standing = "\n".join(lines), _table(section[1], columns)
    body = section[1].replace(standing, table) if standing else f"\n{table}\n{section[1]}"
    plural = "s" if len(rows) > 1 else ""
    return f"{page[: section.start()]}## {heading}{plural}\n{body}{page[section.end() :]}"


def _table(text, columns):
    found = re.search(rf"^\| {columns[0]} \|.*\n(?:\|.*\n?)*", text, re.M)
    return found[0].rstrip("\n") if found else None


def _words(text, columns):
    """{name: meaning} of the rows that are about one thing."""
    rows = (
        re.fullmatch(r"\| `(\w+)` \|(?:.*\|)? (.+) \|", line) for line in (_table(text, columns) or "").splitlines()
    )
    return {row[1]: row[2] for row in rows if row}


def _line(cells):
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"

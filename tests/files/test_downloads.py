"""Addresses of model files: well formed, in one place, and the same in the templates, the README and the help pages."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pack.nodes.faces.face_packs import check_pack
from pack.nodes.files.downloads import DOWNLOADS, pages_of
from pack.nodes.files.model_files import choices, not_found

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
PAGES_OF_TEXT = [ROOT / "README.md", *(ROOT / "nodes" / "web" / "docs").glob("*.md"), *TEMPLATES]
# hosts of model files, and what the host's dialog gives a button on every version
HOSTS, DIALOG = ("huggingface.co", "drive.google.com"), "https://huggingface.co/"
# how the address of a file begins behind its page
BELOW = {"huggingface.co": "/resolve/main/", "github.com": "/releases/download/"}
URL = re.compile(r"https?://[^\s)\"'\\]+")
each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)


def known():
    return {one.page for one in DOWNLOADS} | {one.link for one in DOWNLOADS}


@pytest.mark.parametrize("one", DOWNLOADS, ids=lambda one: one.name)
def test_addresses_are_well_formed(one):
    for address in filter(None, (one.page, one.link)):
        parts = urlsplit(address)
        assert parts.scheme == "https" and parts.hostname in (*HOSTS, *BELOW) and not parts.query and not parts.fragment
    assert one.licence and one.folder and " " not in one.link
    if one.link:
        assert one.link.startswith(one.page + BELOW[urlsplit(one.page).hostname])
        assert Path(one.link).suffix == Path(one.name).suffix


@pytest.mark.parametrize("path", PAGES_OF_TEXT, ids=lambda path: path.name)
def test_model_files_are_named_by_known_addresses(path):
    urls = URL.findall(path.read_text(encoding="utf-8"))
    assert {url for url in urls if urlsplit(url).hostname in HOSTS or BELOW["github.com"] in url} <= known()


def entries(path):
    """(node, entry) for each file that a template offers in the host's dialog."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    return [(node, entry) for node in nodes for entry in node["properties"].get("models", ())]


@each_template
def test_templates_offer_what_the_dialog_takes(path):
    for node, entry in entries(path):
        (found,) = [one for one in DOWNLOADS if one.name == entry["name"]]
        assert entry == {"name": found.name, "url": found.link, "directory": found.folder}
        assert entry["name"] in node["widgets_values"] and found.link.startswith(DIALOG)
        assert found.name.endswith(".safetensors")


@each_template
def test_templates_offer_or_explain_each_file(path):
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    notes = " ".join(node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    offered = {entry["name"] for _, entry in entries(path)}
    wanted = {
        one for node in nodes for one in DOWNLOADS
        if any(isinstance(said, str) and said and said in one.name.split(" and ")[0].split(", ")
               for said in node.get("widgets_values", ()))
    }  # fmt: skip
    for one in wanted:
        assert one.name in offered or one.page in notes, one.name


def test_an_empty_folder_says_where_files_are():
    said = not_found("npnet_file", choices((), "npnet")[0], [], "npnet")
    assert "put files from https://" in said and all(page in said for page in pages_of("npnet", "npnet_file"))
    assert "from" not in not_found("x", choices((), "vae")[0], [], "vae")


PAGES = {
    ("loras", "krona_file"): ["1IwqYd918CbtTUq1WwW_4d7gRP0V3aJhz"],
    ("loras", "edlora_file"): ["1roYyOL7e5Ivx3lvLAXz8XKY00sDLC377", "1ArvKsxj41PcWbw_UZcyc5NDcKEQjK8pl"],
    ("embeddings", "concept_file"): ["sd-concepts-library"],
    **{("loras", name): [] for name in ("delta_file",)},
    **{("embeddings", name): [] for name in ("mapper_file", "perfusion_file", "prospect_file")},
}


@pytest.mark.parametrize(("folder", "wanted"), PAGES)
def test_each_input_names_the_pages_of_its_own_files(folder, wanted):
    pages, expected = pages_of(folder, wanted), PAGES[folder, wanted]
    assert [page.rsplit("/", 1)[1] for page in pages] == expected
    said = not_found(wanted, choices((), folder)[0], [], folder)
    assert all(page in said for page in pages) and ("from http" in said) == bool(expected)


def test_the_archives_of_faces_are_named():
    said = check_pack("none of them")
    assert all(f"/releases/download/v0.7/{name}.zip" in said for name in ("antelopev2", "buffalo_l"))

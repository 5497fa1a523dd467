"""Pictures on nodes: written to the temp folder, announced to the page, and never a reason to end a run."""

import sys
from types import SimpleNamespace

import folder_paths
import pytest
from comfy_execution.utils import CurrentNodeContext
from PIL import Image

from pack.nodes.host.node_pictures import running_node, show_picture

RED = Image.new("RGB", (8, 8), "red")


@pytest.fixture
def sent(monkeypatch, tmp_path):
    """What the host's server is given to send."""
    told = []
    server = SimpleNamespace(send_sync=lambda *message: told.append(message), client_id="page")
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path / "temp"))
    return told


def test_a_picture_stands_on_the_node_that_it_is_of(sent, tmp_path):
    with CurrentNodeContext("run", "7"):
        node = running_node()
    with CurrentNodeContext("run", "9"):
        show_picture(RED, node)
    ((event, said, page),) = sent
    (image,) = said["output"]["images"]
    assert (event, page) == ("executed", "page")
    assert said["node"] == said["display_node"] == "7" and said["prompt_id"] == "run"
    assert image["type"] == "temp" and image["subfolder"] == ""
    with Image.open(tmp_path / "temp" / image["filename"]) as written:
        assert written.tobytes() == RED.tobytes()


def test_equal_pictures_are_one_file(sent, tmp_path):
    with CurrentNodeContext("run", "7"):
        show_picture(RED, "7")
        show_picture(RED.copy(), "8")
        show_picture(Image.new("RGB", (8, 8), "blue"), "7")
    assert len(sent) == 3 and len(list((tmp_path / "temp").iterdir())) == 2


def test_where_no_server_runs_nothing_is_written(sent, tmp_path, monkeypatch):
    assert running_node() is None
    show_picture(RED, None)
    monkeypatch.delitem(sys.modules, "server")
    with CurrentNodeContext("run", "7"):
        show_picture(RED, "7")
    assert sent == [] and not (tmp_path / "temp").exists()


def test_a_full_disk_ends_no_run(sent, tmp_path):
    (tmp_path / "temp").write_text("a file where the folder should be")
    with CurrentNodeContext("run", "7"):
        show_picture(RED, "7")
    assert sent == []

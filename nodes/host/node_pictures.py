"""Small pictures on nodes of the page, beside their outputs: what a run made of their inputs.

As with sentences, nothing is shown where no server runs; a picture that cannot be written is no reason to end a run.
"""

import hashlib
import io
from pathlib import Path

import folder_paths
from comfy_execution.utils import get_executing_context

from .messages import log_info, running_server


def running_node():
    """The id of the node that is running, for a picture on it later; None where no server runs."""
    context = get_executing_context()
    return None if context is None else context.node_id


def show_picture(picture, node):
    """Shows a PIL picture on a node of the graph that is running; it lasts until the page is loaded again."""
    server, context = running_server(), get_executing_context()
    if node is None or context is None or server is None:
        return
    name = _written(picture)
    if name is not None:
        shown = {"images": [{"filename": name, "subfolder": "", "type": "temp"}]}
        said = {"node": node, "display_node": node, "output": shown, "prompt_id": context.prompt_id}
        server.send_sync("executed", said, server.client_id)


def _written(picture):
    """The name of the picture in the host's temp folder; None if the disk does not take it."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    name = f"personalization_{hashlib.blake2b(data.getvalue(), digest_size=8).hexdigest()}.png"
    try:
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.getvalue())
    except OSError as error:
        log_info(f"a picture cannot be shown on its node: {error.strerror}")
        return None
    return name

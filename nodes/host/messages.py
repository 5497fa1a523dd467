"""Words for the user: on the node that runs, and in the log."""

import logging
import sys

from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)


def warn_user(message):
    """Logs a sentence and shows it on the node that is running."""
    log.warning("%s", message)
    _show(message)


def input_error(message):
    """The exception to raise for an input we cannot work with; its one sentence is shown on the node too."""
    _show(message)
    return ValueError(message)


def _show(message):
    # where no server runs (a script, a test) there is no node to write on, and its module must not be loaded
    prompt_server = getattr(sys.modules.get("server"), "PromptServer", None)
    server = getattr(prompt_server, "instance", None)
    context = get_executing_context()
    if context is not None and server is not None:
        server.send_progress_text(message, context.node_id)

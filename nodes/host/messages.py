"""Words for the user, on the node that runs and in the log: the one place through which text leaves the pack.

Words, file names and tensor names in a sentence may come from anywhere (a workflow or a model file of the web). They go
out as plain text: control characters by their codes, long names cut, and on the page, which shows progress text as
HTML, without a character that means anything there.
"""

import logging
import re
import sys

from comfy_execution.utils import get_executing_context

# Characters that are kept of a quoted name, of anything without a space, of a whole sentence.
QUOTED, UNBROKEN, SENTENCE = 80, 160, 480
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def plain(text):
    """The text as one printable line of at most SENTENCE characters, with long names in it cut in the middle."""
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    text = re.sub(rf'(?<=")[^"]{{{QUOTED},}}(?=")', lambda match: _cut(match[0], QUOTED), text)
    text = re.sub(rf"\S{{{UNBROKEN},}}", lambda match: _cut(match[0], UNBROKEN), text)
    return _cut(text, SENTENCE)


def warn_user(message):
    """Logs a sentence and shows it on the node that is running."""
    log_warning(message)
    _show(message)


def input_error(message):
    """The exception to raise for an input we cannot work with; its one sentence is shown on the node too."""
    _show(message)
    return ValueError(plain(message))


def log_warning(message):
    """Writes a sentence into the log alone."""
    logging.getLogger(__name__).warning("%s", plain(message))


def log_info(message):
    """Writes a sentence that seldom matters into the log."""
    logging.getLogger(__name__).info("%s", plain(message))


def _cut(text, most):
    if len(text) <= most:
        return text
    kept = (most - 5) // 2
    return f"{text[:kept]} ... {text[-kept:]}"


def _show(message):
    # where no server runs (a script, a test) there is no node to write on, and its module must not be loaded
    prompt_server = getattr(sys.modules.get("server"), "PromptServer", None)
    server = getattr(prompt_server, "instance", None)
    context = get_executing_context()
    if context is not None and server is not None:
        # two brackets would begin a link of the page's own
        text = re.sub(r"\[(?=\[)", "[ ", plain(message)).translate(_HTML)
        server.send_progress_text(text, context.node_id)

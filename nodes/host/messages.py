"""Words for the user, on the node that runs and in the log: the one place through which text leaves the pack.

Words, file names and tensor names in a sentence may come from anywhere (a workflow or a model file of the web). They go
out as plain text: control characters by their codes, long names cut, and on the page, which shows progress text as
HTML, without a character that means anything there.
"""

import logging
import re
import sys
import unicodedata
from threading import Lock

from comfy_execution.utils import get_executing_context

# Characters that are kept of a quoted name, of anything without a space, of a whole sentence.
QUOTED, UNBROKEN, SENTENCE = 80, 160, 480
# So many sentences stand on a node, and those of so many nodes are remembered.
SHOWN, NODES = 20, 16
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# {(run of the graph, node): its sentences}, the node that spoke last at the end
_SAID, _LOCK = {}, Lock()


def visible(character):
    """Whether a reader sees a character, or a space of some width: not a control character, not a hidden mark."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def plain(text):
    """The text as one printable line of at most SENTENCE characters, with long names in it cut in the middle."""
    text = "".join(one if visible(one) else one.encode("unicode_escape").decode("ascii") for one in text)
    text = re.sub(rf'(?<=")[^"]{{{QUOTED},}}(?=")', lambda match: _cut(match[0], QUOTED), text)
    text = re.sub(rf"\S{{{UNBROKEN},}}", lambda match: _cut(match[0], UNBROKEN), text)
    return _cut(text, SENTENCE)


def warn_user(message):
    """Logs a sentence and shows it on the node that is running."""
    log_warning(message)
    _show(message)


def show_progress(line):
    """Shows a line on the node that is running, below what is said there; the next one takes its place."""
    _show(line, passing=True)


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


def running_server():
    """The host's server; None where none runs (a script, a test), whose module must not be loaded then."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def _cut(text, most):
    if len(text) <= most:
        return text
    kept = (most - 5) // 2
    return f"{text[:kept]} ... {text[-kept:]}"


def _show(message, passing=False):
    server, context = running_server(), get_executing_context()
    if context is not None and server is not None:
        # two brackets would begin a link of the page's own
        text = re.sub(r"\[(?=\[)", "[ ", plain(message)).translate(_HTML)
        with _LOCK:
            said = [*_said(context), text] if passing else _all_said(context, text)
            server.send_progress_text("\n".join(said), context.node_id)


def _said(context):
    return _SAID.get((context.prompt_id, context.node_id), ())


def _all_said(context, text):
    """What a node has said in this run of the graph, a text last: the page keeps only what comes last."""
    key = context.prompt_id, context.node_id
    said = list(dict.fromkeys([*_SAID.pop(key, ()), text]))[-SHOWN:]
    _SAID[key] = said
    for old in list(_SAID)[:-NODES]:
        del _SAID[old]
    return said

"""The texts that stand in the widgets of the graph that is running."""

from comfy_execution.utils import get_executing_context

from .messages import running_server


def texts_of_graph():
    """Texts of its nodes that read text with a CLIP, then those of all others; [] where no server runs one."""
    running, context = getattr(running_server(), "prompt_queue", None), get_executing_context()
    if running is None or context is None:
        return []
    # the queue's items: (number, id, graph, ...)
    graphs = [item[2] for item in list(running.currently_running.values()) if item[1] == context.prompt_id]
    inputs = [node.get("inputs", {}) for graph in graphs for node in graph.values()]
    inputs.sort(key=lambda own: "clip" not in own)
    return list(dict.fromkeys(value for own in inputs for value in own.values() if isinstance(value, str)))

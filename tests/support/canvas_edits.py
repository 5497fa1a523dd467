"""What a user does on a canvas, done to API graphs: nodes muted, bypassed, exchanged and set; nodes by their titles."""

import copy

from support.canvas import sockets


def number_of(graph, title):
    """The id of the one node with a title; of nodes that share one, `title #2` is the second."""
    title, _, place = title.partition(" #")
    found = [node_id for node_id, node in graph.items() if node["_meta"]["title"] == title]
    if not found or (len(found) > 1 and not place):
        raise LookupError(f"{len(found)} nodes are called {title}")
    return found[int(place or 1) - 1]


def muted(graph, *titles):
    """The graph without these nodes; what hung on them stays without a link, as the front end posts it."""
    gone = {number_of(graph, title) for title in titles}
    return {
        node_id: dict(node, inputs={n: v for n, v in node["inputs"].items() if not _leads_to(v, gone)})
        for node_id, node in graph.items()
        if node_id not in gone
    }


def bypassed(graph, object_info, *titles):
    """The graph in which each of these nodes hands on, for an output, its first input of that type, if it has one."""
    graph = copy.deepcopy(graph)
    for title in titles:
        gone = number_of(graph, title)
        node = graph.pop(gone)
        info = object_info[node["class_type"]]
        kinds = {name: kind for name, (kind, _) in sockets(info).items()}
        linked = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        for other in graph.values():
            for name, value in list(other["inputs"].items()):
                if _leads_to(value, {gone}):
                    kind = info["output"][value[1]]
                    through = next((link for before, link in linked.items() if kinds[before] == kind), None)
                    other["inputs"].pop(name) if through is None else other["inputs"].update({name: through})
    return graph


def exchanged(graph, title, kind, slots=None, **inputs):
    """The graph with a node of another type in the place of one; slots: {old output: new one} where they differ.

    A named input takes over the link of the node before it where its value is Ellipsis.
    """
    graph = copy.deepcopy(graph)
    node_id = number_of(graph, title)
    before = graph[node_id]["inputs"]
    said = {name: before[name] if value is ... else value for name, value in inputs.items()}
    graph[node_id] = {"class_type": kind, "inputs": said, "_meta": {"title": title}}
    for other in graph.values():
        for value in other["inputs"].values():
            if _leads_to(value, {node_id}):
                value[1] = (slots or {}).get(value[1], value[1])
    return graph


def added(graph, title, kind, **inputs):
    """The graph with one node more."""
    number = str(max(map(int, graph)) + 1)
    return {**graph, number: {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}}


def changed(graph, **values):
    """The graph with new values, {title with underscores for blanks: {input: value}}; a title stands for a link."""
    graph = copy.deepcopy(graph)
    for title, inputs in values.items():
        node = graph[number_of(graph, title.replace("_", " "))]
        for name, value in inputs.items():
            if name not in node["inputs"] and not isinstance(value, tuple):
                raise LookupError(f"{title} has no input {name}")
            node["inputs"][name] = [number_of(graph, value[0]), value[1]] if isinstance(value, tuple) else value
    return graph


def _leads_to(value, node_ids):
    return isinstance(value, list) and value[0] in node_ids

"""Workflow files without a browser: canvas form to API form, what is wrong in one, and smaller copies.

Covers what the shipped files use: no subgraphs and no bypassed nodes, whose meaning only the front end knows.
"""

# These stand on the canvas only.
NOTES = ("Note", "MarkdownNote")
RELAYS = ("Reroute", "PrimitiveNode")
SHOWING = ("SaveImage", "PreviewImage")
# Gets widgets from the front end itself, more in some versions than in others.
DRAWN = ("PreviewAny",)
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
ACTIVE, MUTED = 0, 2
CHANGING = ("increment", "decrement", "randomize")
# Fills the places of what the front end adds after a widget.
EXTRA = object()
# Stands for all types of nodes.
ALL = "*"


def to_api(workflow, object_info):
    """The graph that the front end would post for this canvas."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    graph = {}
    for node in nodes.values():
        if node["type"] in NOTES + RELAYS or node.get("mode", ACTIVE) == MUTED:
            continue
        if node.get("mode", ACTIVE) != ACTIVE or node["type"] not in object_info:
            raise ValueError(f"{name_of(node)} is bypassed, a subgraph or unknown; only a browser converts it")
        inputs = widget_inputs(node, object_info[node["type"]])
        for socket in node.get("inputs", []):
            if socket.get("link") is None:
                continue
            origin, slot = source(links[socket["link"]], nodes, links)
            if origin is None or origin.get("mode", ACTIVE) == MUTED:
                inputs.pop(socket["name"], None)
            elif origin["type"] != "PrimitiveNode":
                # A primitive's value is already in the widget it feeds.
                inputs[socket["name"]] = [str(origin["id"]), slot]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def source(link, nodes, links):
    """The node and slot where a link begins, seen through reroutes; no node if a reroute hangs in the air."""
    origin, slot = nodes[link[1]], link[2]
    if origin["type"] != "Reroute":
        return origin, slot
    before = origin["inputs"][0].get("link")
    return source(links[before], nodes, links) if before is not None else (None, 0)


def widget_inputs(node, info):
    values = zip(widgets(info), node.get("widgets_values") or [])
    return {name: value for name, value in values if name is not EXTRA}


def widgets(info):
    """Names of a node's widgets in the order of `widgets_values`, with EXTRA for each added entry."""
    names = []
    for name, (kind, options) in sockets(info).items():
        if not (isinstance(kind, list) or kind in WIDGET_TYPES) or options.get("forceInput"):
            continue
        names.append(name)
        seed = kind == "INT" and name in ("seed", "noise_seed")
        if options.get("control_after_generate", seed) or options.get("image_upload"):
            names.append(EXTRA)
    return names


def sockets(info):
    """{input: (type, options)}, required ones first, as the front end walks them."""
    found = {}
    for part in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(part, {}).items():
            found[name] = (kind, options[0] if options else {})
    return found


def problems(workflow, object_info):
    """One sentence for each thing in a canvas file that a user would stumble over."""
    found = link_problems(workflow)
    for node in workflow["nodes"]:
        if node["type"] in NOTES + RELAYS:
            continue
        if node["type"] not in object_info:
            found.append(f"{name_of(node)} is of an unknown type.")
            continue
        found += node_problems(node, object_info[node["type"]])
    return found


def node_problems(node, info):
    found = []
    known = sockets(info)
    for socket in node.get("inputs", []):
        if socket["name"] not in known:
            found.append(f"{name_of(node)} has an input {socket['name']} that its type lacks.")
    for socket in node.get("outputs", [])[len(info["output"]) :]:
        # Unused ones do no harm: newer versions give some nodes an output that older ones lack.
        if socket.get("links"):
            found.append(f"{name_of(node)} has an output {socket['name']} that its type lacks.")
    names, values = widgets(info), node.get("widgets_values") or []
    if len(names) != len(values) and node["type"] not in DRAWN:
        found.append(f"{name_of(node)} holds {len(values)} widget values, its type asks for {len(names)}.")
    for before, name, value in zip([None, *names], names, values):
        if name is EXTRA and value in CHANGING:
            found.append(f'{name_of(node)} has {before} on "{value}"; shipped files say "fixed".')
    return found


def link_problems(workflow):
    """Links are written twice, in a list and at the nodes' sockets: both must say the same."""
    listed = {link[0]: tuple(link[1:5]) for link in workflow["links"]}
    found = [f"Link {link} is listed twice." for link in repeated(link[0] for link in workflow["links"])]
    found += [f"Two nodes have the id {node}." for node in repeated(node["id"] for node in workflow["nodes"])]
    starts, ends = {}, {}
    for node in workflow["nodes"]:
        for slot, socket in enumerate(node.get("outputs", [])):
            starts.update({link: (node["id"], slot, socket["type"]) for link in socket.get("links") or []})
        for slot, socket in enumerate(node.get("inputs", [])):
            if socket.get("link") is not None:
                ends[socket["link"]] = (node["id"], slot, socket["type"])
    for link in sorted({*listed, *starts, *ends}):
        start, end = starts.get(link, (None, None, None)), ends.get(link, (None, None, None))
        if listed.get(link) != (*start[:2], *end[:2]):
            found.append(f"Link {link} is {listed.get(link)} in the list, {(*start[:2], *end[:2])} at the nodes.")
        elif not fits(start[2], end[2]):
            found.append(f"Link {link} joins {start[2]} to {end[2]}.")
    return found


def fits(output, socket):
    """Whether types match; a type may list several, and "*" takes all."""
    output, socket = set(str(output).split(",")), set(str(socket).split(","))
    return "*" in output | socket or bool(output & socket)


def repeated(items):
    seen = list(items)
    return sorted({item for item in seen if seen.count(item) > 1})


def name_of(node):
    return f"Node {node['id']} ({node['type']})"


def small(side, steps):
    """Values with which a workflow is quick, for `with_values`: pictures of side x side, so many steps.

    By node type, since names mean many things: a latent's width is in pixels, a box's is a share of the picture, and
    re-denoising takes one step of so many.
    """
    pixels = {"width": side, "height": side}
    return {
        "EmptyLatentImage": {**pixels, "batch_size": 1},
        "PersonalizationResolution": {"megapixels": max(0.01, side * side / 1024**2), "batch_size": 1},
        "PersonalizationNoisePairs": {**pixels, "count": 2},
        "PersonalizationTrainNPNet": {"steps": 1, "batch_size": 2},
        "PersonalizationTrainClassPictures": {**pixels, "count": 2, "steps": steps},
        "PersonalizationTrain": {"steps": 1, "size": side},
        "PersonalizationTrainRefineWord": {"steps": 2},
        "PersonalizationTrainOptions": {"placements": 1, "batch_size": 1},
        "PersonalizationConceptConductor": {"kmeans_restarts": 2},
        "PersonalizationVisCtrl": {"steps": steps + 1, "start_step": 1, "later_steps": steps, "later_start": 0},
        "KSampler": {"steps": steps},
        "BasicScheduler": {"steps": steps},
    }


def with_values(graph, values):
    """A copy of an API graph with new values for constant inputs: {node type: {input: value}}, ALL for every type."""
    changed = {}
    for node_id, node in graph.items():
        new = {**values.get(ALL, {}), **values.get(node["class_type"], {})}
        inputs = {
            name: new[name] if name in new and not isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        changed[node_id] = dict(node, inputs=inputs)
    return changed


def shows(graph):
    """The nodes of an API graph that give pictures."""
    return {node_id for node_id, node in graph.items() if node["class_type"] in SHOWING}


def without_titles(graph):
    """What two API graphs must share to be the same graph."""
    return {node_id: {"class_type": node["class_type"], "inputs": node["inputs"]} for node_id, node in graph.items()}

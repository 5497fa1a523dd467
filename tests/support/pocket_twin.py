"""Shipped graphs on the pocket model and what goes with it, in place of files that nobody ships: small and quick."""

from support import canvas

SIDE, STEPS = 64, 2
# {input: what stands there in place of a file}; networks and LoRAs that a template wrote keep their names
ENTRIES = {
    "adapter_file": "pocket: mip_adapter",
    "adapter_set": "pocket: resadapter",
    "edlora_file": "pocket: lion_edlora",
}
OWN = ("my_npnet", "chow_dog_lora")
WORDS = {f"<{name}_{k}>": f"<lion_{k}>" for name in ("chow_dog", "siberian_cat") for k in (1, 2)}
LOADERS = {"CheckpointLoaderSimple": "PersonalizationPocketModel", "CLIPVisionLoader": "PersonalizationPocketVision"}


def pocket_twin(graph):
    """The graph with the pocket model in place of each checkpoint, with small pictures and few steps."""
    graph = canvas.with_values(graph, canvas.small(SIDE, STEPS))
    return _with_start_network({node_id: _twin(node) for node_id, node in graph.items()})


def _twin(node):
    kind, inputs = node["class_type"], {name: _entry(name, value) for name, value in node["inputs"].items()}
    if kind in LOADERS:
        kind, inputs = LOADERS[kind], {}
    if kind == "LoraLoader":
        # the one that the template ED-LoRA to LoRA writes
        inputs["lora_name"] = "chow_dog_lora.safetensors"
    return dict(node, class_type=kind, inputs=inputs)


def _entry(name, value):
    if name == "npnet_file" and not value.startswith(OWN):
        return "pocket: npnet"
    if name in ENTRIES and value != "none" and not str(value).startswith((*OWN, "pocket: ")):
        return ENTRIES[name]
    if isinstance(value, str):
        for word, other in WORDS.items():
            value = value.replace(word, other)
    return value


def _with_start_network(graph):
    """Trainings start from the small network: a fresh one would be of the published size."""
    for node_id, node in list(graph.items()):
        if node["class_type"] == "PersonalizationTrainNPNet":
            loader = {"class_type": "PersonalizationNPNetLoader", "inputs": {"npnet_file": "pocket: npnet"}}
            graph[f"{node_id}00"] = {**loader, "_meta": {"title": "Start network"}}
            graph[node_id] = dict(node, inputs={**node["inputs"], "npnet": [f"{node_id}00", 0]})
    return graph

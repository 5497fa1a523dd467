"""Which node an image adapter's file belongs to, and what to say where it is connected to another."""

from ..host.messages import input_error
from .image_adapter import RESAMPLED_FACE

MIP_NODE, FACEID_NODE, INSTANTID_NODE, STORYMAKER_NODE = "MIP-Adapter", "FaceID", "InstantID", "StoryMaker"
NEEDS = {
    MIP_NODE: "an IP-Adapter or MIP-Adapter file",
    FACEID_NODE: "a FaceID file",
    INSTANTID_NODE: "the ip-adapter.bin of InstantID",
    STORYMAKER_NODE: "the mask.bin of StoryMaker",
}
# The tokens of a portrait file, which reads several pictures of a face at once.
PORTRAIT = 16


def check_use(adapter, node):
    """Raises ValueError, naming the right node, for an adapter whose file is another node's."""
    what, nodes = _belongs(adapter)
    if node not in nodes:
        raise input_error(
            f"{adapter.name} is {what}; use the node {' or '.join(nodes)} for it. {node} needs {NEEDS[node]}"
        )


def _belongs(adapter):
    """(what an adapter is, the nodes that it is for)."""
    if adapter.variant == RESAMPLED_FACE:
        return _resampled_face(adapter.name.lower())
    if adapter.variant == "storymaker":
        return "a StoryMaker file", (STORYMAKER_NODE,)
    if adapter.variant == "faceid-plus":
        return "a FaceID plus file", (FACEID_NODE,)
    if adapter.variant == "faceid":
        return f"a FaceID {'portrait ' if adapter.tokens == PORTRAIT else ''}file", (FACEID_NODE,)
    return NEEDS[MIP_NODE], (MIP_NODE,)


def _resampled_face(name):
    # two files with the same tensors and the same mathematics: only a name can tell
    if "instant" in name:
        return "an InstantID file", (INSTANTID_NODE,)
    if "portrait" in name or "faceid" in name:
        return "a FaceID portrait file", (FACEID_NODE,)
    return "an InstantID or FaceID portrait file (they look alike)", (INSTANTID_NODE, FACEID_NODE)

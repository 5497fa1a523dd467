"""Numbers that are none or beyond the limits of their widgets: the host lets them through where a wire brings them."""

import math

import pytest
from comfy_api.latest import io

from pack.nodes import NODES

# What a node bounds itself, and the ends that it does so at.
OWN = {
    "PersonalizationMRSA": {"weight": (), "style_fidelity": ()},
    "PersonalizationReferenceOnly": {"style_fidelity": ()},
    # small sides are rounded up
    "PersonalizationResolution": {"custom_width": ("max",), "custom_height": ("max",)},
}


def numbers():
    for node in NODES:
        schema = node.define_schema()
        for socket in schema.inputs:
            if isinstance(socket, io.Int.Input | io.Float.Input):
                ends = OWN.get(schema.node_id, {}).get(socket.id, ("min", "max", "number"))
                yield pytest.param(node, socket, ends, id=f"{schema.node_id} {socket.id}")


def beyond(socket, ends):
    if "max" in ends:
        yield from (socket.max + 1, 10**5000, math.inf)
    if "min" in ends:
        yield from (socket.min - 1, -(10**5000), -math.inf)
    if "number" in ends:
        yield math.nan


@pytest.mark.parametrize(("node", "socket", "ends"), numbers())
def test_numbers_beyond_their_limits(node, socket, ends):
    others = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
    for value in beyond(socket, ends):
        with pytest.raises(ValueError, match=f"^{socket.id} is .*; enter a number from {socket.min} to {socket.max}$"):
            node.execute(**others | {socket.id: value})


def test_what_came_is_said():
    (node,) = (one for one in NODES if one.define_schema().node_id == "PersonalizationBoxMask")
    given = {one.id: one.default for one in node.define_schema().inputs}
    for value, said in ((math.nan, "nan"), (1.5, "1.5"), (10**5000, "far too large or small")):
        with pytest.raises(ValueError, match=f"^x is {said}; enter a number from 0.0 to 1.0$"):
            node.execute(**given | {"x": value})


@pytest.mark.parametrize("end", ["min", "max"])
def test_both_ends_are_within(end):
    (node,) = (one for one in NODES if one.define_schema().node_id == "PersonalizationReference")
    given = {one.id: getattr(one, "default", "") for one in node.define_schema().inputs}
    (strength,) = (getattr(one, end) for one in node.define_schema().inputs if one.id == "strength")
    (made,) = node.execute(**given | {"image": None, "references": (), "strength": strength}).result[0]
    assert made.strength == strength

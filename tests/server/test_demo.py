"""The demo's graph on a real server, in one step."""

import canvas
import demo
from host_server import pictures


def test_every_row_is_drawn(server):
    graph = demo.graph()
    values = {"KSampler": {"steps": 1}, "BasicScheduler": {"steps": 1}}
    drawn = {node for node, _ in pictures(server.run(canvas.with_values(graph.nodes, values)))}
    assert drawn == {number for _, cells in graph.rows for _, number in cells}

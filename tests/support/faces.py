"""Faces to test with: made-up networks that insightface reads, and faces that are given without any network."""

from types import SimpleNamespace

import pytest
import torch
from support.references import draw

# Of a square of pure red, 64 pixels wide, which the made-up detection network takes for a face.
SIDE = 64
POINTS = ((-12.0, -10.0), (12.0, -10.0), (0.0, 0.0), (-8.0, 12.0), (8.0, 12.0))


def packages():
    """The packages that read face networks; the test is left out, and says so, where they are not installed."""
    pytest.importorskip("insightface", reason="insightface is not installed here")
    return pytest.importorskip("onnx", reason="onnx is not installed here")


def save_detector(path, side=None, outputs=9):
    """Writes a detection network in the layout of SCRFD that finds squares of pure red; side: of the only picture."""
    onnx = packages()
    helper, tensors = onnx.helper, onnx.TensorProto
    nodes, found = [], {}
    weights = {"red": [1.0, -0.5, -0.5]}

    def constant(name, values, shape):
        weights.setdefault("made", []).append(helper.make_tensor(name, tensors.FLOAT, shape, values))
        return name

    def rows(kind, stride, source, channels, bias, scale):
        kernel = constant(f"{kind}{stride}w", [scale] + [0.0] * (2 * channels - 1), [2 * channels, 1, 1, 1])
        shift = constant(f"{kind}{stride}b", bias * 2, [2 * channels])
        name = f"{kind}{stride}"
        nodes.append(helper.make_node("Conv", [source, kernel, shift], [f"{name}c"]))
        nodes.append(helper.make_node("Transpose", [f"{name}c"], [f"{name}t"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Reshape", [f"{name}t", f"shape{channels}"], [name]))
        found[name] = helper.make_tensor_value_info(name, tensors.FLOAT, ["?", channels])

    for channels in (1, 4, 10):
        weights.setdefault("made", []).append(
            helper.make_tensor(f"shape{channels}", tensors.INT64, [2], [-1, channels])
        )
    nodes.append(helper.make_node("Conv", ["input", constant("red", weights["red"], [1, 3, 1, 1])], ["redness"]))
    for stride in (8, 16, 32):
        before = SIDE // 2
        pads = [before, before, SIDE - stride - before, SIDE - stride - before]
        nodes.append(
            helper.make_node(
                "AveragePool",
                ["redness"],
                [f"mean{stride}"],
                kernel_shape=[SIDE, SIDE],
                strides=[stride, stride],
                pads=pads,
                count_include_pad=1,
            )
        )
        # pure red gives 2 x 127.5 / 128; a square that is off by a quarter stays below the threshold of 0.5
        rows("score", stride, f"mean{stride}", 1, [0.0], 0.3 if stride == 16 else 0.0)
        rows("box", stride, f"mean{stride}", 4, [SIDE / 2 / stride] * 4, 0.0)
        rows("points", stride, f"mean{stride}", 10, [at / stride for point in POINTS for at in point], 0.0)
    order = [f"{kind}{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    sides = [side or "height", side or "width"]
    _save(onnx, path, nodes, sides, [found[name] for name in order[:outputs]], weights["made"])


def save_detector_of_a_place(path):
    """Writes a detection network of 128 pixels that finds one face in the upper middle of any picture."""
    onnx = packages()
    helper, tensors = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
    ]
    weights, outputs = [helper.make_tensor("none", tensors.FLOAT, [], [0.0])], []
    # of the cells with stride 8, the one at (64, 32); a face of 48 pixels
    first = 2 * (4 * 16 + 8)
    for kind, channels, value in (
        ("score", 1, [1.0]),
        ("box", 4, [3.0] * 4),
        ("points", 10, [p / 11 for p in sum(POINTS, ())]),
    ):
        for stride in (8, 16, 32):
            values = torch.zeros(2 * (128 // stride) ** 2, channels)
            if stride == 8:
                values[first] = torch.tensor(value)
            name = f"{kind}{stride}"
            weights.append(helper.make_tensor(f"{name}v", tensors.FLOAT, values.shape, values.flatten().tolist()))
            nodes.append(helper.make_node("Add", ["nothing", f"{name}v"], [name]))
            outputs.append(helper.make_tensor_value_info(name, tensors.FLOAT, list(values.shape)))
    _save(onnx, path, nodes, [128, 128], outputs, weights)


def save_recogniser(path, side=112, numbers=512, seed=0):
    """Writes a recognition network of one random convolution and one random product."""
    onnx = packages()
    helper, tensors = onnx.helper, onnx.TensorProto
    cells = (side // 16) ** 2 * 4
    made = [
        helper.make_tensor("look", tensors.FLOAT, [4, 3, 16, 16], draw(4, 3, 16, 16, seed=seed).flatten().tolist()),
        helper.make_tensor(
            "tell", tensors.FLOAT, [cells, numbers], draw(cells, numbers, seed=seed + 1).flatten().tolist()
        ),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "look"], ["seen"], strides=[16, 16]),
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("MatMul", ["flat", "tell"], ["embedding"]),
    ]
    output = helper.make_tensor_value_info("embedding", tensors.FLOAT, [1, numbers])
    _save(onnx, path, nodes, [side, side], [output], made)


def _save(onnx, path, nodes, sides, outputs, weights):
    helper = onnx.helper
    given = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, *sides])
    graph = helper.make_graph(nodes, "made up", [given], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def red_squares(*places, size=(640, 640), colour=0):
    """A picture (1, H, W, 3) with squares of pure red around places (x, y), each a face to the made-up detector."""
    picture = torch.full((1, *size, 3), 0.5)
    for x, y in places:
        half = SIDE // 2
        picture[:, y - half : y + half, x - half : x + half] = torch.eye(3)[colour]
    return picture


def face(embedding=None, x=32.0, y=32.0, side=40.0, score=0.9, keypoints=None):
    """A face as networks give it, around a place."""
    box = torch.tensor([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    if keypoints is None:
        keypoints = torch.tensor(POINTS) * (side / SIDE) + torch.tensor([x, y])
    embedding = draw(512, seed=1) if embedding is None else embedding
    return SimpleNamespace(box=box, keypoints=keypoints, score=score, embedding=embedding)


class GivenFaces:
    """Stands for `analysis.faces_of`: hands out given faces, those of the next picture at each call."""

    def __init__(self, *pictures):
        self.pictures, self.calls, self.seen = pictures, 0, []

    def __call__(self, analysis, image):
        self.calls += 1
        self.seen.append(image)
        return self.pictures[(self.calls - 1) % len(self.pictures)]


# three people in one picture, by falling score, as networks give them
GROUP = torch.rand(1, 200, 400, 3, generator=torch.Generator().manual_seed(0))
FACES = [
    face(draw(512, seed=1), 300, 100, side=60, score=0.9),
    face(draw(512, seed=2), 80, 60, side=40, score=0.8),
    face(draw(512, seed=3), 200, 80, side=50, score=0.7),
]

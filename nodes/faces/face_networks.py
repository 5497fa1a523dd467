"""insightface's networks, read one by one from files of the user's: never a call that could download.

The packages insightface and onnxruntime are imported here alone, and only when a node needs them.
"""

import importlib
import sys
from dataclasses import dataclass

from ..files.safe_files import sha256_of
from ..host.messages import input_error, warn_user
from .face_packs import files_of_pack

# How onnxruntime calls what a dropdown offers.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
# Recognition networks by the SHA-256 of their files, as insightface publishes it, and the packs that hold them.
RECOGNISERS = {
    "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf": ("glintr100", "antelopev2"),
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": ("w600k_r50", "buffalo_l"),
    "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f": ("w600k_mbf", "buffalo_s"),
}
# A detection network has more outputs than these, and three of five are the points of a face.
DETECTION_OUTPUTS, WITH_POINTS = 5, (9, 15)
# The smallest face that a recognition network reads.
RECOGNITION_SIDE = 112
# Of networks with one output that find landmarks in a face.
LANDMARKS = 192


@dataclass(frozen=True, eq=False)
class FaceAnalysis:
    """A detection and a recognition network of insightface, loaded."""

    name: str
    detector: object
    recogniser: object
    # what the recogniser is, such as "glintr100"; None for an unknown one
    trained: str | None


@dataclass(frozen=True)
class _Network:
    path: object
    # of the square picture that it takes, 0 where that is not fixed or not square
    side: int
    outputs: int

    @property
    def detects(self):
        return self.outputs >= DETECTION_OUTPUTS

    @property
    def recognises(self):
        # landmarks and attributes read other sizes: 192 and 96
        return self.outputs == 1 and self.side >= RECOGNITION_SIDE and self.side % 16 == 0 and self.side != LANDMARKS


def load_face_analysis(pack, provider):
    """The FaceAnalysis of a pack of models/insightface, told by what its networks take and give.

    provider: a key of PROVIDERS. Raises ValueError for missing packages, for a pack that is not there or lacks one of
    the two networks, and for a file that is no such network.
    """
    read = _reader(provider)
    networks = [_looked_into(path) for path in files_of_pack(pack)]
    detector = _one_of(networks, pack, "detection", lambda network: network.detects)
    recogniser = _one_of(networks, pack, "recognition", lambda network: network.recognises)
    if detector.outputs not in WITH_POINTS:
        raise input_error(
            f"{detector.path.name} finds faces but not their eyes, nose and mouth; use one such as "
            "scrfd_10g_bnkps.onnx of antelopev2 or det_10g.onnx of buffalo_l"
        )
    known = RECOGNISERS.get(sha256_of(recogniser.path), (None,))
    if known[0] is None:
        warn_user(
            f"{recogniser.path.name} of {pack} is no recognition network that a published adapter was trained with: "
            "InstantID needs antelopev2, FaceID and StoryMaker need buffalo_l; with others the likeness is lost"
        )
    return FaceAnalysis(pack, _opened(read, detector), _opened(read, recogniser), known[0])


def check_trained(analysis, wanted, adapter_name):
    """Says that an adapter was trained with another recognition network than the one whose embeddings it gets.

    wanted: a name in RECOGNISERS.
    """
    trained = getattr(analysis, "trained", wanted)
    if trained not in (wanted, None):
        packs = dict(RECOGNISERS.values())
        warn_user(
            f"{adapter_name} was trained with {packs[wanted]} ({wanted}), these embeddings are from {trained}: the "
            f"likeness will be lost; choose {packs[wanted]} in Load Face Analysis"
        )


def _reader(provider):
    """What opens a network file by its path."""
    runtime, package = _imported("onnxruntime"), _imported("insightface")
    there = [name for name, own in PROVIDERS.items() if own in runtime.get_available_providers()]
    if provider not in there:
        raise input_error(
            f'provider is "{provider}", which this onnxruntime does not have (it has: {", ".join(there)}); choose cpu'
        )
    providers = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    return lambda path: package.model_zoo.get_model(str(path), providers=providers)


def _imported(package):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else package
        reason = "" if missing == package else f" ({missing} is missing)"
        if not isinstance(error, ModuleNotFoundError):
            reason = f" ({error}; onnxruntime and onnxruntime-gpu must not be installed together)"
        raise input_error(
            f"faces need the package {package}, which cannot be imported{reason}; run: {sys.executable} -m pip install "
            "insightface onnxruntime - and restart ComfyUI; all nodes without faces work as they are"
        ) from error


def _looked_into(path):
    """The _Network of a file, as far as its table of contents tells."""
    onnx = _imported("onnx")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        sides = [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim][2:]
    # the packages have no class in common for what is wrong with a file
    except Exception as error:
        raise _no_network(path, error) from error
    return _Network(path, sides[0] if len(sides) == 2 and sides[0] == sides[1] else 0, len(graph.output))


def _opened(read, network):
    """insightface's object for a network."""
    try:
        opened = read(network.path)
    # here too; and an AssertionError says nothing
    except Exception as error:
        raise _no_network(network.path, error) from error
    return opened


def _no_network(path, error):
    return input_error(
        f"{path.name} is no network of this kind ({type(error).__name__}): the file is cut off, is a web page, or "
        "belongs to another program; download it again, or move it out of the pack's folder"
    )


def _one_of(networks, pack, kind, test):
    found = [network for network in networks if test(network)]
    if not found:
        names = ", ".join(network.path.name for network in networks) or "none"
        raise input_error(
            f"the pack {pack} has no {kind} network (usable files found: {names}); it needs one detection and one "
            "recognition network, such as scrfd_10g_bnkps.onnx and glintr100.onnx of antelopev2"
        )
    return found[0]

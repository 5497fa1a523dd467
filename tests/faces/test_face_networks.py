"""insightface itself over made-up networks: packs told by content, faces found, what is refused; nothing downloaded."""

import random
import socket
import sys

import folder_paths
import numpy as np
import pytest
import torch
from support.faces import packages, red_squares, save_detector, save_recogniser
from support.models import execute

from pack.nodes.faces import face_networks
from pack.nodes.faces.analysis import Face, faces_of
from pack.nodes.faces.face_networks import check_trained
from pack.nodes.faces.faces_node import FaceAnalysisLoader


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A models folder of our own, and no network."""

    def refused(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "insightface", raising=False)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path / "models" / "insightface"


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A detection and a recognition network, written once."""
    made = tmp_path_factory.mktemp("networks")
    save_detector(made / "det.onnx")
    save_recogniser(made / "rec.onnx")
    return made


def install(networks, folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("det", "rec"):
        (folder / f"{name}.onnx").write_bytes((networks / f"{name}.onnx").read_bytes())


def loaded(pack, provider="cpu"):
    return execute(FaceAnalysisLoader, face_models=pack, provider=provider)[0]


def packs():
    return FaceAnalysisLoader.define_schema().inputs[0].options


def test_two_faces_are_found_and_told_apart(networks, folder):
    install(networks, folder / "models" / "mine")
    analysis = loaded("mine")
    faces = faces_of(analysis, red_squares((160, 160), (448, 320)))
    assert len(faces) == 2 and all(isinstance(one, Face) for one in faces)
    found = sorted(faces, key=lambda one: float(one.box[0]))
    for one, (x, y) in zip(found, ((160, 160), (448, 320)), strict=True):
        torch.testing.assert_close(one.box, torch.tensor([x - 32.0, y - 32, x + 32, y + 32]), rtol=0, atol=1.0)
        torch.testing.assert_close(one.keypoints[2], torch.tensor([float(x), y]), rtol=0, atol=1.0)
        assert one.score > 0.5 and one.embedding.shape == (512,) and one.embedding.dtype == torch.float32
    same = faces_of(analysis, red_squares((160, 160), (448, 320)))
    assert torch.equal(same[0].embedding, faces[0].embedding)


def test_colours_are_not_reversed(networks, folder):
    """The network finds red: blue squares would be found if the channels were the wrong way round."""
    install(networks, folder / "models" / "mine")
    assert faces_of(loaded("mine"), red_squares((160, 160), colour=2)) == ()


def test_embeddings_are_those_of_the_package(networks, folder):
    """FaceAnalysis of the package, over the same files, finds the same and aligns with OpenCV."""
    packages()
    from insightface.app import FaceAnalysis

    install(networks, folder / "models" / "mine")
    picture = red_squares((160, 160), (448, 320)) * torch.rand(
        1, 640, 640, 1, generator=torch.Generator().manual_seed(0)
    )
    picture = torch.where(red_squares((160, 160), (448, 320)) == 1, 1.0, picture)
    app = FaceAnalysis(name="mine", root=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(-1, det_size=(640, 640))
    theirs = app.get((picture[0] * 255).byte().flip(-1).numpy())
    ours = faces_of(loaded("mine"), picture)
    assert len(theirs) == len(ours) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert abs(one.box - torch.from_numpy(other.bbox)).max() < 1e-3
        assert abs(one.keypoints - torch.from_numpy(other.kps)).max() < 1e-3
        theirs_embedding = torch.from_numpy(other.embedding)
        # OpenCV and torch round the crops' pixels half a grey level apart
        assert torch.cosine_similarity(one.embedding, theirs_embedding, dim=0) > 0.999


def test_a_face_that_fills_the_picture_is_looked_for_at_smaller_sizes(networks, folder, monkeypatch):
    install(networks, folder / "models" / "mine")
    analysis = loaded("mine")
    tried, original = [], analysis.detector.detect

    def only_small(picture, input_size):
        tried.append(input_size)
        return original(picture if input_size[0] < 400 else picture * 0, input_size=input_size)

    monkeypatch.setattr(analysis.detector, "detect", only_small)
    assert faces_of(analysis, red_squares((160, 160), size=(320, 320)))
    assert tried == [(640, 640), (512, 512), (384, 384)]
    assert faces_of(analysis, torch.zeros(1, 320, 320, 3)) == () and tried[-1] == (128, 128)


def test_a_detection_network_of_one_size(networks, folder, tmp_path):
    save_detector(folder / "models" / "mine" / "det.onnx", side=320)
    install(networks, folder / "models" / "mine", "rec")
    (one,) = faces_of(loaded("mine"), red_squares((160, 160), size=(320, 320)))
    torch.testing.assert_close(one.box, torch.tensor([128.0, 128, 192, 192]), rtol=0, atol=1.0)


def test_packs_where_people_have_them(networks, folder):
    for place in ("models/antelopev2/antelopev2", "buffalo_l", "models/deep/own"):
        install(networks, folder / place)
    install(networks, folder, "rec")
    assert packs() == ["antelopev2", "buffalo_l", "deep/own"]
    assert all(FaceAnalysisLoader.validate_inputs(face_models=pack) is True for pack in packs())
    assert loaded("antelopev2").name == "antelopev2" and loaded("deep\\own").detector.taskname == "detection"


def test_only_the_two_networks_of_a_pack_are_loaded(networks, folder, monkeypatch):
    place = folder / "models" / "mine"
    install(networks, place)
    save_recogniser(place / "1k3d68.onnx", side=192, numbers=3309)
    save_recogniser(place / "genderage.onnx", side=96, numbers=3)
    import insightface.model_zoo

    opened, original = [], insightface.model_zoo.get_model

    def watched(path, **kwargs):
        opened.append(path.rpartition("/")[2].rpartition("\\")[2])
        return original(path, **kwargs)

    monkeypatch.setattr(insightface.model_zoo, "get_model", watched)
    loaded("mine")
    assert sorted(opened) == ["det.onnx", "rec.onnx"]


def test_no_pack_is_said_and_nothing_is_made(folder):
    packages()
    (entry,) = packs()
    sentence = FaceAnalysisLoader.validate_inputs(face_models=entry)
    assert "models/insightface" in entry and "detection and a recognition network" in sentence
    assert "research only" in sentence and str(folder) in sentence
    for pack in (entry, "antelopev2", 5):
        with pytest.raises(ValueError, match="face_models"):
            loaded(pack)
    assert not folder.exists()


@pytest.mark.parametrize(("there", "missing"), [("det", "recognition"), ("rec", "detection")])
def test_a_pack_that_lacks_a_network(networks, folder, there, missing):
    install(networks, folder / "models" / "half", there)
    with pytest.raises(ValueError, match=f"half has no {missing} network.*found: {there}.onnx"):
        loaded("half")


@pytest.mark.parametrize(
    "contents", [b"", b"<!DOCTYPE html><html></html>", b"\x08\x07" + b"\xff" * 40, b"PK\x03\x04", "cut"], ids=str
)
def test_a_damaged_file_is_one_sentence(networks, folder, contents):
    install(networks, folder / "models" / "mine")
    whole = (networks / "det.onnx").read_bytes()
    (folder / "models" / "mine" / "det.onnx").write_bytes(whole[: len(whole) // 2] if contents == "cut" else contents)
    with pytest.raises(ValueError, match="^det.onnx is no network of this kind") as caught:
        loaded("mine")
    assert "\n" not in str(caught.value)


def damaged(data, seed):
    """The bytes with a few of them changed, cut out or doubled."""
    rng = random.Random(seed)
    data = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.randrange(len(data))
        change = rng.choice(("flip", "cut", "double"))
        if change == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif change == "cut":
            del data[at : at + rng.randrange(1, 200)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
    return bytes(data)


@pytest.mark.parametrize("name", ["det", "rec"])
def test_damage_at_random_is_one_sentence(networks, folder, name):
    """Or does no harm: what is found has numbers, or is nothing."""
    install(networks, folder / "models" / "mine")
    whole = (networks / f"{name}.onnx").read_bytes()
    for seed in range(25):
        (folder / "models" / "mine" / f"{name}.onnx").write_bytes(damaged(whole, seed))
        try:
            for one in faces_of(loaded("mine"), red_squares((160, 160), size=(320, 320))):
                assert torch.isfinite(one.box).all() and one.embedding.ndim == 1
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


def test_finds_that_can_be_no_face_are_left_out(networks, folder, monkeypatch):
    install(networks, folder / "models" / "mine")
    analysis = loaded("mine")
    boxes = np.array([[0, 0, 9, 9, 0.9], [0, 0, np.nan, 9, 0.9], [0, 0, 9, 9, 0.8]], dtype=np.float32)
    points = np.zeros((3, 5, 2), dtype=np.float32)
    points[2, 0] = 1e9
    monkeypatch.setattr(analysis.detector, "detect", lambda *args, **kwargs: (boxes, points))
    assert len(faces_of(analysis, torch.rand(1, 64, 64, 3))) == 1


def test_a_network_that_fails_on_a_picture(networks, folder, monkeypatch):
    install(networks, folder / "models" / "mine")
    analysis = loaded("mine")

    def broken(*args, **kwargs):
        raise IndexError("list index out of range")

    monkeypatch.setattr(analysis.detector, "detect", broken)
    with pytest.raises(ValueError, match="detection network of mine failed on a picture .IndexError"):
        faces_of(analysis, torch.rand(1, 64, 64, 3))


def test_a_network_with_points_is_needed(networks, folder):
    save_detector(folder / "models" / "mine" / "det.onnx", outputs=6)
    install(networks, folder / "models" / "mine", "rec")
    with pytest.raises(ValueError, match="finds faces but not their eyes"):
        loaded("mine")


@pytest.mark.parametrize("package", ["insightface", "onnxruntime", "onnx"])
def test_missing_packages(networks, folder, monkeypatch, package):
    packages()
    install(networks, folder / "models" / "mine")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"need the package {package}.*pip install insightface onnxruntime") as caught:
        loaded("mine")
    assert sys.executable in str(caught.value) and "nodes without faces work" in str(caught.value)


def test_a_provider_that_is_not_there(networks, folder):
    install(networks, folder / "models" / "mine")
    with pytest.raises(ValueError, match='provider is "coreml".*it has: .*cpu'):
        loaded("mine", "coreml")


def test_recognisers_are_told_by_their_bytes(networks, folder, monkeypatch, caplog):
    install(networks, folder / "models" / "mine")
    assert loaded("mine").trained is None and "no recognition network that a published adapter" in caplog.text
    caplog.clear()
    from pack.nodes.files.safe_files import sha256_of

    known = {sha256_of(networks / "rec.onnx"): ("w600k_r50", "buffalo_l")}
    monkeypatch.setattr(face_networks, "RECOGNISERS", known | {"0" * 64: ("glintr100", "antelopev2")})
    analysis = loaded("mine")
    assert analysis.trained == "w600k_r50" and not caplog.text
    check_trained(analysis, "w600k_r50", "x.bin")
    assert not caplog.text
    check_trained(analysis, "glintr100", "x.bin")
    assert "x.bin was trained with antelopev2 (glintr100), these embeddings are from w600k_r50" in caplog.text


def test_the_pack_is_looked_at_again_when_a_file_changes(networks, folder):
    install(networks, folder / "models" / "mine")
    before = FaceAnalysisLoader.fingerprint_inputs(face_models="mine", provider="cpu")
    assert FaceAnalysisLoader.fingerprint_inputs(face_models="mine", provider="cpu") == before
    (folder / "models" / "mine" / "rec.onnx").write_bytes(b"other")
    assert FaceAnalysisLoader.fingerprint_inputs(face_models="mine", provider="cpu") != before

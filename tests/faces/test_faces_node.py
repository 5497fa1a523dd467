"""Add Faces and Face Keypoints: a group picture taken apart, and the points of a real photograph."""

import pytest
import torch
from support.faces import FACES, GROUP, face
from support.golden_data import case
from support.models import execute

from pack.kernels.face_alignment import aligned, similarity, template
from pack.nodes.faces.faces_node import FaceKeypoints, FaceReferences
from pack.nodes.references.references_wire import Reference


def centre(mask):
    rows, columns = mask.nonzero().float().mean(0).tolist()
    return round(columns), round(rows)


def test_one_reference_per_face(faces):
    chain, crops, count = execute(
        FaceReferences, face_analysis=None, image=GROUP, words="girl, man ,woman,", strength=0.7
    )
    assert count == 3 and crops.shape == (3, 512, 512, 3) and crops.min() >= 0 and crops.max() <= 1
    assert [one.word for one in chain] == ["girl", "man", "woman"] and {one.strength for one in chain} == {0.7}
    assert [centre(one.region[0]) for one in chain] == [(80, 60), (200, 80), (300, 100)]
    girl = chain[0]
    # one size of the face on each side, cut at the edge of the picture
    assert torch.equal(girl.image, GROUP[:, 0:120, 20:140]) and girl.region.shape == (1, 200, 400)
    # its box and a quarter more on each side
    assert girl.region.sum() == 60 * 60 and girl.mask is None


def test_other_faces_in_a_crop_are_masked_out(faces):
    chain, *_ = execute(FaceReferences, face_analysis=None, image=GROUP, margin=3.0)
    assert all(one.mask is not None and one.mask.shape == one.image.shape[:3] for one in chain)
    for one, (x, y) in zip(chain, ((80, 60), (200, 80), (300, 100)), strict=True):
        half = round(3.5 * {80: 40, 200: 50, 300: 60}[x])
        # the middle of so many whole pixels lies half a one off
        found = torch.tensor(centre(one.mask[0]))
        assert (found - torch.tensor([x - max(0, x - half), y - max(0, y - half)])).abs().max() <= 1


def test_orders_and_counts(faces):
    chain, *_ = execute(FaceReferences, face_analysis=None, image=GROUP, order="largest first")
    assert [centre(one.region[0])[0] for one in chain] == [300, 200, 80]
    chain, _, count = execute(FaceReferences, face_analysis=None, image=GROUP, max_faces=2)
    assert [centre(one.region[0])[0] for one in chain] == [200, 300] and count == 2
    before = (Reference(GROUP, "dog"),)
    longer, *_ = execute(FaceReferences, face_analysis=None, image=GROUP, max_faces=1, references=before)
    assert longer[0] is before[0] and len(longer) == 2


def test_several_group_pictures(faces):
    faces(FACES[:1], FACES[1:])
    chain, _, count = execute(FaceReferences, face_analysis=None, image=torch.cat([GROUP, GROUP]))
    assert count == 3 and [centre(one.region[0])[0] for one in chain] == [300, 80, 200]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"words": "woman, man"}, "words has 2 words for 3 faces"),
        ({"order": "by name"}, "order is"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"margin": -1.0}, "margin is -1"),
        ({"max_faces": -1}, "max_faces is -1"),
        ({"image": torch.zeros(0, 8, 8, 3)}, "image has no picture"),
    ],
)
def test_what_is_refused(faces, inputs, said):
    with pytest.raises(ValueError, match=said):
        execute(FaceReferences, face_analysis=None, **{"image": GROUP} | inputs)


def test_no_face(faces):
    faces([])
    for node in (FaceReferences, FaceKeypoints):
        with pytest.raises(ValueError, match="picture 1: no face was found.*640, 512, 384, 256, 128"):
            execute(node, face_analysis=None, image=GROUP)


def test_keypoints_are_the_published_picture(faces):
    golden, _ = case("instantid/keypoints")
    expected = golden["frontal/picture"]
    faces([face(keypoints=golden["frontal/keypoints"], x=64, y=64)])
    picture, masks = execute(FaceKeypoints, face_analysis=None, image=torch.rand(1, *expected.shape))
    assert torch.equal((picture[0] * 255).round().byte(), expected)
    assert masks.shape == (1, *expected.shape[:2]) and centre(masks[0]) == (64, 64)


def test_a_mask_for_each_face_from_left_to_right(faces):
    picture, masks = execute(FaceKeypoints, face_analysis=None, image=GROUP)
    assert picture.shape == GROUP.shape and [centre(mask)[0] for mask in masks] == [80, 200, 300]
    assert len(execute(FaceKeypoints, face_analysis=None, image=GROUP, faces=1)[1]) == 1


# a real photograph through a real detection network


def test_a_real_photograph(faces):
    """The astronaut of scikit-image through MTCNN: its five points, its picture, its crop."""
    skimage = pytest.importorskip("skimage.data", reason="scikit-image is not installed here")
    mtcnn = pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed here").MTCNN
    photograph = torch.from_numpy(skimage.astronaut()).float()[None] / 255
    boxes, scores, points = mtcnn(device="cpu").detect(skimage.astronaut(), landmarks=True)
    assert len(boxes) == 1
    # as the detection network was seen to find it
    expected = torch.tensor([[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.3], [245.3, 141.9]])
    five = torch.tensor(points[0].tolist())
    assert (five - expected).abs().max() < 1
    real = face(keypoints=five)
    real.box, real.score = torch.tensor(boxes[0].tolist()), float(scores[0])
    faces([real])
    picture, masks = execute(FaceKeypoints, face_analysis=None, image=photograph)
    for point, colour in zip(five.int().tolist(), ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)), strict=True):
        assert tuple(picture[0, point[1], point[0]].tolist()) == colour
    assert masks[0, 129, 224] == 1 and masks.mean() < 0.1
    (reference,), crops, count = execute(FaceReferences, face_analysis=None, image=photograph, words="woman")
    assert count == 1 and reference.mask is None and reference.image.shape[1] > 250
    crop = aligned(photograph[0], similarity(five, template(112)), 112)
    # a face is brighter at the cheeks than in its eyes
    eyes, cheeks = (
        [crop[y - 2 : y + 3, x - 3 : x + 4].mean() for x, y in places]
        for places in (((38, 52), (73, 51)), ((36, 74), (77, 74)))
    )
    assert max(eyes) < min(cheeks)

"""Where each person's face shall stand, by a pose picture or by their own."""

import pytest
import torch
from support.faces import FACES, GROUP, face

from pack.nodes.faces.face_views import people_of
from pack.nodes.faces.group_faces import face_references
from pack.nodes.faces.pose_faces import faces_of_people, faces_of_pose
from pack.nodes.references.references_wire import Reference


def test_the_largest_faces_from_left_to_right(faces):
    first, second = faces_of_pose(None, GROUP, 2)
    assert torch.equal(first.points, FACES[2].keypoints) and torch.equal(second.points, FACES[0].keypoints)
    assert first.size == second.size == (200, 400)


def test_one_picture_per_person(faces):
    faces(FACES[:1], FACES[1:])
    first, second = faces_of_pose(None, torch.cat([GROUP, GROUP]), 2)
    assert torch.equal(first.points, FACES[0].keypoints) and torch.equal(second.points, FACES[2].keypoints)
    with pytest.raises(ValueError, match="pose_image has 2 pictures for 3 references"):
        faces_of_pose(None, torch.cat([GROUP, GROUP]), 3)


def test_too_few_faces(faces):
    with pytest.raises(ValueError, match=r"shows 3 face\(s\), but 4 references"):
        faces_of_pose(None, GROUP, 4)
    faces([])
    with pytest.raises(ValueError, match="pose_image: no face was found"):
        faces_of_pose(None, GROUP, 1)


def test_without_one_faces_stand_as_in_their_own_pictures(faces):
    faces(FACES[1:2], FACES[2:], FACES[:1])
    references = [Reference(torch.cat([GROUP, GROUP])), Reference(GROUP[:, :, 150:])]
    first, second = faces_of_people(people_of(None, references), references)
    assert torch.equal(first.points, FACES[1].keypoints) and first.size == (200, 400)
    assert torch.equal(second.points, FACES[0].keypoints) and second.size == (200, 250)


def test_faces_of_a_group_stand_as_in_the_group(faces):
    """Their pictures are cut out of it; their regions lie in it, and so do the places of their faces."""
    references, _ = face_references(None, GROUP, "", "left to right", margin=0.5)
    group, crops = sorted(FACES, key=lambda face: float(face.box[0])), []
    for reference, one in zip(references, group, strict=True):
        (top, left), size = reference.cut
        height, width = reference.image.shape[1:3]
        assert size == (200, 400)
        assert torch.equal(GROUP[:, top : top + height, left : left + width], reference.image)
        # as the detector finds it in its own crop
        x, y = one.box.reshape(2, 2).mean(0).tolist()
        crops.append([face(one.embedding, x - left, y - top, side=float(one.box[2] - one.box[0]), score=0.9)])
    faces(*crops)
    placed = faces_of_people(people_of(None, references), references)
    for one, own, reference in zip(placed, group, references, strict=True):
        assert torch.equal(one.points, own.keypoints) and one.size == (200, 400)
        x, y = one.points.mean(0).long().tolist()
        assert reference.region[0, y, x] == 1


def test_points_follow_the_size_of_the_result(faces):
    (one,) = faces_of_pose(None, GROUP, 1)
    assert torch.equal(one.at((200, 400)), one.points)
    assert torch.equal(one.at((400, 400)), one.points * torch.tensor([1.0, 2.0]))

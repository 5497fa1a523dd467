"""Which face of a picture a reference means, and what is said of it."""

import pytest
import torch
from support.faces import FACES, GROUP, face

from pack.nodes.faces.face_views import people_of
from pack.nodes.references.references_wire import Reference


def test_the_largest_face_is_meant_and_said(faces, caplog):
    ((view,),) = people_of(None, [Reference(GROUP, "man")])
    assert torch.equal(view.embedding, FACES[0].embedding) and torch.equal(view.keypoints, FACES[0].keypoints)
    assert 'reference 1 ("man"): its picture has 3 faces, and the largest is used' in caplog.text


def test_a_mask_says_whose(faces, caplog):
    mask = torch.zeros(1, 100, 200)
    mask[:, 20:40, 30:50] = 1
    ((view,),) = people_of(None, [Reference(GROUP, mask=mask)])
    assert torch.equal(view.embedding, FACES[1].embedding) and not caplog.text
    corner = torch.zeros(1, 100, 200)
    corner[:, :10, :10] = 1
    with pytest.raises(ValueError, match="reference 1: no face of its picture has its centre inside the mask"):
        people_of(None, [Reference(GROUP, mask=corner)])


def test_faces_that_are_small_or_cut_are_said(faces, caplog):
    faces([face(x=50, y=50, side=20)], [face(x=10, y=50, side=60)])
    people_of(None, [Reference(GROUP), Reference(GROUP)])
    assert "reference 1: its face is only 20 pixels wide" in caplog.text
    assert "reference 2: its face is cut by the edge" in caplog.text


@pytest.mark.parametrize(
    ("embedding", "said"), [(torch.ones(128), "gives 128 numbers"), (torch.full((512,), float("nan")), "NaN")]
)
def test_embeddings_that_cannot_be_used(faces, embedding, said):
    faces([face(embedding)])
    with pytest.raises(ValueError, match=said):
        people_of(None, [Reference(GROUP)])

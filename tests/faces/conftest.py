import pytest
from support.faces import FACES, GivenFaces

from pack.nodes.faces import analysis


@pytest.fixture
def faces(monkeypatch):
    """Gives pictures their faces, at first the three of a group; returns what was asked."""

    def give(*pictures):
        given = GivenFaces(*pictures)
        monkeypatch.setattr(analysis, "faces_of", given)
        return given

    give(FACES)
    return give

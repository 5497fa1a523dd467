import pytest

from pack.nodes.host import messages
from pack.nodes.reference_attention import noise_level


@pytest.fixture
def keys(monkeypatch):
    """What reference passes catch, one {block: (k, v, grid)} per reference and pass."""
    caught, real = [], noise_level.caught

    def spy(*args):
        entries = real(*args)
        caught.extend(entries)
        return entries

    monkeypatch.setattr(noise_level, "caught", spy)
    return caught


@pytest.fixture
def said(monkeypatch):
    """The sentences that are shown on a node."""
    found = []
    monkeypatch.setattr(messages, "_show", found.append)
    return found

import pytest

from pack.nodes.reference_attention import mrsa


@pytest.fixture
def keys(monkeypatch):
    """What reference passes catch, one {block: (k, v)} per reference and pass."""
    caught, real = [], mrsa.caught_keys

    def spy(*args):
        entries = real(*args)
        caught.extend(entries)
        return entries

    monkeypatch.setattr(mrsa, "caught_keys", spy)
    return caught

"""Folders of their own for pairs and networks."""

import folder_paths
import pytest
from support.noise_pairs import SMALL


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder with `output` for the pairs and `npnet` for networks, which are small ones from scratch."""
    from pack.nodes.golden_noise import npnet_training

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    (tmp_path / "output").mkdir()
    extensions = set(folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", ([str(tmp_path / "npnet")], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(npnet_training, "PUBLISHED_SIZES", SMALL)
    return tmp_path

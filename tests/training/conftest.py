"""What whole trainings run on: folders of their own, and the host's tiny models with pictures."""

from types import SimpleNamespace

import folder_paths
import pytest
import torch
from support.models import tiny_model
from support.trainings import SIDE
from support.word_files import concept_clip

VOCABULARY = {"a": 5, "photo": 6, "of": 7, "and": 8, "with": 9}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders of LoRAs, embeddings and outputs."""
    for kind in ("loras", "embeddings"):
        (tmp_path / kind).mkdir()
        endings = folder_paths.folder_names_and_paths[kind][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], endings))
        monkeypatch.setitem(folder_paths.filename_list_cache, kind, None)
        folder_paths.filename_list_cache.pop(kind)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path


@pytest.fixture(scope="module")
def host():
    """MODEL, CLIP, latents and pictures, made as a server makes them."""
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(1)
        model = tiny_model()
        latents = torch.randn(4, 4, SIDE // 8, SIDE // 8, generator=generator)
        images = torch.rand(2, 80, 96, 3, generator=generator)
    return SimpleNamespace(model=model, clip=concept_clip(VOCABULARY), latents=latents, images=images)

"""The pack's own pictures: read as they are, and one sentence where an installation is damaged."""

import io
import random
import struct
import zlib

import pytest
import torch
from PIL import Image

from pack.nodes.files.picture_files import mask_file, picture_file


def noise(mode, kind):
    out = io.BytesIO()
    Image.effect_noise((24, 16), 50).convert(mode).save(out, kind)
    return out.getvalue()


def refused(path, says):
    with pytest.raises(ValueError, match=says) as caught:
        picture_file(path)
    assert path.name in str(caught.value) and str(caught.value).isprintable()


def test_a_picture_and_a_mask_are_read_as_they_are(tmp_path):
    Image.new("RGB", (3, 2), (255, 0, 51)).save(tmp_path / "x.png")
    assert torch.equal(picture_file(tmp_path / "x.png"), torch.tensor([1.0, 0.0, 0.2]).expand(1, 2, 3, 3))
    Image.new("L", (3, 2), 51).save(tmp_path / "x.png")
    assert torch.equal(mask_file(tmp_path / "x.png"), torch.full((1, 2, 3), 0.2))


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "L"), ("PNG", "RGBA")])
def test_any_damage_has_a_sentence(kind, mode, tmp_path):
    path, whole, chance = tmp_path / "x.jpg", noise(mode, kind), random.Random(0)
    refusals = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice([len(damaged), len(damaged), len(damaged) // 2])])
        try:
            picture_file(path)
        except ValueError as error:
            refusals += 1
            assert str(error).startswith("x.jpg in ") and str(error).endswith("reinstall the pack, which contains it")
    assert refusals > 50


def test_a_picture_of_billions_of_pixels_is_not_unfolded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (5000, 100_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        lines = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + lines)
        refused(tmp_path / "x.png", "is damaged or not a picture; reinstall the pack")


def test_a_picture_that_is_gone_or_a_folder(tmp_path):
    refused(tmp_path / "gone.jpg", "is no longer in ")
    (tmp_path / "folder.jpg").mkdir()
    refused(tmp_path / "folder.jpg", "is a folder, not a file")

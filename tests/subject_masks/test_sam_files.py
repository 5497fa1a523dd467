"""SAM files of every layout, what other files are told, and what damaged ones are told."""

import re

import folder_paths
import pytest
import torch
from safetensors.torch import save_file
from support.golden_data import GOLDEN
from support.models import execute

from pack.nodes.subject_masks.sam_keys import standard_names
from pack.nodes.subject_masks.sam_node import SAMLoader
from pack.nodes.subject_masks.subject_mask_node import SubjectMask

FILE = GOLDEN / "persam" / "tiny_sam.pth"


@pytest.fixture
def folder(tmp_path):
    folder_paths.add_model_folder_path("sams", str(tmp_path))
    yield tmp_path
    folder_paths.folder_names_and_paths["sams"][0].remove(str(tmp_path))


@pytest.fixture(scope="module")
def published():
    return torch.load(FILE, weights_only=True)


def loaded(folder, tensors, name="sam.pth"):
    if name.endswith(".safetensors"):
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, folder / name)
    else:
        torch.save(tensors, folder / name)
    return execute(SAMLoader, sam_file=name)[0]


def weights_of(sam):
    return sam.patcher.model.sam.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_every_layout_is_the_same_network(folder, published):
    sam = loaded(folder, published)
    expected = weights_of(sam)
    assert sam.name == "sam.pth" and all(not one.is_meta for one in expected.values())
    layouts = {
        "transformers.safetensors": standard_names(published, "x"),
        "wrapped.pth": {"model": published},
        "module.pth": {f"module.{key}": tensor for key, tensor in published.items()},
        "half.safetensors": {key: tensor.to(torch.float64) for key, tensor in published.items()},
        "with_means.pth": {**published, "pixel_mean": torch.ones(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)},
        "hq.pth": {
            **published,
            "mask_decoder.hf_token.weight": torch.ones(1, 32),
            "mask_decoder.compress_vit_feat.0.weight": torch.ones(2, 2),
            "mask_decoder.embedding_encoder.0.weight": torch.ones(2, 2),
        },
    }
    for name, tensors in layouts.items():
        assert same(weights_of(loaded(folder, tensors, name)), expected), name


def test_a_file_may_hold_the_shared_table_once(folder, published):
    tensors = standard_names(published, "x")
    for key in ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"):
        left = {name: tensor for name, tensor in tensors.items() if name != key}
        assert same(weights_of(loaded(folder, left, "once.safetensors")), weights_of(loaded(folder, published)))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("image_encoder.layers.0.blocks.0.attn.qkv.weight", "is MobileSAM, whose image encoder (TinyViT)"),
        ("image_encoder.patch_embed.seq.0.c.weight", "is not a SAM file; choose SAM's own file"),
        ("image_encoder.trunk.blocks.0.attn.qkv.weight", "is SAM 2;"),
        ("model.image_encoder.trunk.blocks.0.attn.qkv.weight", "is SAM 2;"),
        ("vision_encoder.backbone.blocks.0.attn.qkv.weight", "is SAM 2 or later;"),
        ("detector.backbone.vision_backbone.trunk.weight", "is SAM 3;"),
        ("model.diffusion_model.input_blocks.0.0.weight", "is not a SAM file"),
    ],
)
def test_other_files_are_told_by_name(folder, key, said):
    with pytest.raises(ValueError, match=re.escape(f"other.pth {said}")):
        loaded(folder, {key: torch.ones(2, 2)}, "other.pth")


def test_damaged_files_are_one_sentence(folder, published):
    whole = FILE.read_bytes()
    for length in (0, 10, 1000, len(whole) // 2, len(whole) - 30):
        (folder / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^cut\.pth [^\n]{5,400}$"):
            execute(SAMLoader, sam_file="cut.pth")
    for key in list(published)[::7]:
        without = {name: tensor for name, tensor in published.items() if name != key}
        with pytest.raises(ValueError, match=r"^less\.pth is not a SAM file[^\n]{5,400}$"):
            loaded(folder, without, "less.pth")
        torn = {**published, key: published[key].flatten()[:1]}
        if torn[key].shape != published[key].shape:
            with pytest.raises(ValueError, match=r"^torn\.pth is not a SAM file[^\n]{5,400}$"):
                loaded(folder, torn, "torn.pth")
    with pytest.raises(ValueError, match="NaN or infinite values at"):
        loaded(folder, {**published, "mask_decoder.iou_token.weight": torch.full((1, 32), torch.nan)}, "nan.pth")


def test_hostile_sizes_take_no_memory(folder, published):
    """Names and shapes that ask for a huge network are answered at once."""
    many = {**published, "image_encoder.blocks.999999999.norm1.weight": torch.ones(16)}
    with pytest.raises(ValueError, match="is not a SAM file of a known size"):
        loaded(folder, many, "many.pth")
    wide = {**published, "image_encoder.blocks.0.mlp.lin1.weight": torch.ones(1, 16).expand(60_000, 16).contiguous()}
    with pytest.raises(ValueError, match="is not a SAM file of a known size"):
        loaded(folder, wide, "wide.pth")


def test_nothing_of_a_file_runs(folder):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"image_encoder.blocks.0": Bomb()}, folder / "bomb.pth")
    with pytest.raises(ValueError, match=r"^bomb\.pth "):
        execute(SAMLoader, sam_file="bomb.pth")


def test_an_empty_folder_says_where_files_go():
    said = SAMLoader.validate_inputs("none.pth")
    assert 'sam_file "none.pth" is not in' in said and "sams" in said


def test_the_subject_must_keep_a_token(folder, published):
    sam = loaded(folder, published)
    mask = torch.zeros(1, 256, 256)
    mask[:, 100, 100] = 1
    pictures = {"reference_image": torch.rand(1, 256, 256, 3), "images": torch.rand(1, 64, 96, 3)}
    with pytest.raises(ValueError, match="the subject is too small for SAM's 64x64 grid; crop the picture closer"):
        execute(SubjectMask, sam=sam, reference_mask=mask, **pictures)
    for value in (0.0, 0.25):
        with pytest.raises(ValueError, match="reference_mask has one value everywhere, so it marks no subject"):
            execute(SubjectMask, sam=sam, reference_mask=torch.full((1, 64, 64), value), **pictures)
    with pytest.raises(ValueError, match="sam is empty; connect Load SAM"):
        execute(SubjectMask, sam=None, reference_mask=mask, **pictures)
    with pytest.raises(ValueError, match="images has no picture"):
        execute(SubjectMask, sam=sam, reference_mask=mask, **{**pictures, "images": torch.zeros(0, 8, 8, 3)})


def test_masks_are_resized_and_a_batch_has_a_mask_each(folder, published):
    sam = loaded(folder, published)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    pictures = {"reference_image": torch.rand(1, 64, 64, 3), "images": torch.rand(2, 40, 72, 3)}
    found, report = execute(SubjectMask, sam=sam, reference_mask=mask, **pictures)
    assert found.shape == (2, 40, 72) and set(found.unique().tolist()) <= {0.0, 1.0}
    assert [line.split(":")[0] for line in report.splitlines()] == ["picture 1", "picture 2"]


def test_a_table_of_another_width_is_refused_at_once(folder, published):
    name = next(key for key in published if key.endswith("positional_encoding_gaussian_matrix"))
    with pytest.raises(ValueError, match=r"^odd\.pth is not a SAM file"):
        loaded(folder, {**published, name: published[name][:, :1]}, "odd.pth")


def test_a_very_thin_picture_has_a_mask(folder, published):
    sam = loaded(folder, published)
    reference, mask = torch.rand(1, 128, 128, 3), torch.ones(1, 128, 128)
    thin = torch.rand(1, 1, 3000, 3)
    found = execute(SubjectMask, sam=sam, reference_image=reference, reference_mask=mask, images=thin)[0]
    assert found.shape == (1, 1, 3000)

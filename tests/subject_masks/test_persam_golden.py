"""Subject Mask on the recorded cases, through the public nodes."""

import shutil

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from support.compare import relative
from support.golden_data import GOLDEN, case
from support.models import execute

from pack.nodes.subject_masks import persam, persam_fit, sam_picture
from pack.nodes.subject_masks.sam_node import SAMLoader
from pack.nodes.subject_masks.subject_mask_node import SubjectMask

FILE = GOLDEN / "persam" / "tiny_sam.pth"


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sams")
    shutil.copy(FILE, folder / "tiny_sam.pth")
    folder_paths.add_model_folder_path("sams", str(folder))
    yield execute(SAMLoader, sam_file="tiny_sam.pth")[0]
    folder_paths.folder_names_and_paths["sams"][0].remove(str(folder))


@pytest.fixture
def asked(monkeypatch):
    """What the decoder was asked, call by call, with what it gave, per picture."""
    calls, real = [], sam_picture.SAMPicture.masks

    def noted(self, points, labels, box=None, logits=None, guide=None):
        found = real(self, points, labels, box, logits, guide)
        calls.append({"points": points, "box": box, "guide": guide, "logits": found[0], "scores": found[1]})
        return found

    monkeypatch.setattr(sam_picture.SAMPicture, "masks", noted)
    return calls


def image(golden, name):
    return golden[f"{name}image"][None].float() / 255


def masks_of(sam, golden, name, fit=False):
    return execute(
        SubjectMask,
        sam=sam,
        reference_image=image(golden, "ref_"),
        reference_mask=(golden["ref_mask"] > 0)[None].float(),
        images=image(golden, name),
        fit=fit,
    )


CASES = [("square", f"test{i}/") for i in range(3)] + [("wide_aligned", f"test{i}/") for i in range(2)]


@pytest.mark.parametrize(("name", "test"), CASES)
def test_persam(sam, asked, name, test):
    golden, _ = case(f"persam/{name}")
    mask, report = masks_of(sam, golden, test)
    assert [[int(x) for x in point] for point in asked[0]["points"]] == golden[f"{test}points"].tolist()
    similarity, target = asked[0]["guide"]
    assert relative(target, golden["target_embedding"]) < 1e-3
    assert relative(similarity.view(64, 64), golden[f"{test}attention_similarity"]) < 1e-3
    for number, call in enumerate(asked):
        expected = golden[f"{test}pass{number}/scores"]
        found = call["scores"][:1] if number == 0 else call["scores"][1:]
        assert relative(found, expected) < 1e-3
        best = 0 if number == 0 else 1 + int(found.argmax())
        assert relative(call["logits"][best, ::4, ::4], golden[f"{test}pass{number}/logits"]) < 1e-3
    assert [int(x) for x in asked[2]["box"]] == golden[f"{test}box"].tolist()
    wanted = golden[f"{test}mask"] > 0
    assert int(((mask[0] > 0) != wanted).sum()) <= 5
    assert report.startswith("picture 1: score ")


@pytest.mark.parametrize("test", ["test0/", "test1/"])
def test_persam_f(sam, asked, monkeypatch, test):
    golden, _ = case("persam/persam_f")
    fits, real = [], persam.fitted_weights
    monkeypatch.setattr(persam, "fitted_weights", lambda *a: fits.append((a[0], real(*a))) or fits[-1][1])
    mask, report = masks_of(sam, golden, test, fit=True)
    assert [[int(x) for x in point] for point in asked[0]["points"]] == golden["ref_points"].tolist()
    assert relative(asked[0]["scores"][1:], golden["ref_scores"]) < 1e-3
    assert (fits[0][1][1:] - golden["weights"]).abs().max() < 1e-3
    assert [[int(x) for x in point] for point in asked[1]["points"]] == golden[f"{test}points"].tolist()
    for number, call in enumerate(asked[1:]):
        assert relative(call["scores"][1:], golden[f"{test}pass{number}/scores"]) < 1e-3
        if number:
            assert [int(x) for x in call["box"]] == golden[f"{test}pass{number}/box"].tolist()
    assert int(((mask[0] > 0) != (golden[f"{test}mask"] > 0)).sum()) <= 5
    assert report.startswith("weights of SAM's masks: ")


def test_the_fit_runs_in_inference_mode(sam):
    golden, _ = case("persam/persam_f")
    with torch.inference_mode():
        mask, _ = masks_of(sam, golden, "test0/", fit=True)
    assert int(((mask[0] > 0) != (golden["test0/mask"] > 0)).sum()) <= 5


def test_the_fit_can_be_cancelled(monkeypatch):
    losses, real = [], persam_fit.dice_loss

    def cancelling(found, wanted):
        losses.append(real(found, wanted))
        if len(losses) == 15:
            mm.interrupt_current_processing()
        return losses[-1]

    monkeypatch.setattr(persam_fit, "dice_loss", cancelling)
    with pytest.raises(mm.InterruptProcessingException):
        persam_fit.fitted_weights(torch.randn(3, 8, 8), (8, 8), torch.ones(8, 8))
    assert 15 <= len(losses) < 40

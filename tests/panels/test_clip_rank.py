"""CLIP Rank: scores, orders, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from support.compare import close
from support.golden_data import case
from support.models import StubCLIP, execute

from pack.nodes.panels.clip_rank import image_features, picks, text_feature
from pack.nodes.panels.clip_rank_node import CLIPRank
from pack.nodes.references.references_wire import Reference


class Vision:
    """A CLIP vision model whose picture number i, told by its brightness i / 100, has the features of a table."""

    def __init__(self, features):
        self.features = features

    def encode_image(self, image, **options):
        return SimpleNamespace(image_embeds=self.features[[round(float(one.mean()) * 100) for one in image]])


def pictures(*numbers):
    return torch.stack([torch.full((8, 8, 3), number / 100) for number in numbers])


def numbers_of(images):
    return [round(float(image.mean()) * 100) for image in images]


@pytest.fixture(scope="module")
def golden():
    return case("panels/grid")[0]


def clip_of(table):
    return StubCLIP({text: (torch.zeros(1, 7, 8), {"pooled_output": vector[None]}) for text, vector in table.items()})


def ranking(golden, by):
    features = torch.cat([golden["rank/candidate_features"], golden["rank/reference_features"]])
    inputs = {"clip": clip_of({"a text": golden["rank/text_feature"]}), "reference_images": pictures(*range(6, 14))}
    return execute(CLIPRank, clip_vision=Vision(features), images=pictures(*range(6)), text="a text", by=by, **inputs)


@pytest.mark.parametrize(("by", "names"), [("text", ["text"]), ("references", ["image"]), ("mean", ["text", "image"])])
def test_published_scores(golden, by, names):
    images, report = ranking(golden, by)
    expected = sum(golden[f"rank/{name}_scores"] for name in names) / len(names)
    order = expected.argsort(descending=True).tolist()
    assert numbers_of(images) == order
    said = [float(line.split(": ")[1]) for line in report.splitlines()]
    close(torch.tensor(said), expected[order], 6e-5)
    assert report.startswith(f"1. picture {order[0] + 1}: ")
    if by == "text":
        assert order[0] == int(golden["rank/best"])


def test_scores_to_the_digit(golden):
    features = image_features(Vision(golden["rank/candidate_features"]), pictures(*range(6)))
    text = text_feature(clip_of({"a": golden["rank/text_feature"]}), "a")
    close((features @ text.T)[:, 0], golden["rank/text_scores"], 1e-5)


def test_references_may_be_a_chain(golden):
    chain = (Reference(pictures(6, 7)), Reference(pictures(*range(8, 14))))
    features = torch.cat([golden["rank/candidate_features"], golden["rank/reference_features"]])
    found = execute(
        CLIPRank, clip_vision=Vision(features), images=pictures(*range(6)), by="references", references=chain
    )
    assert found[1] == ranking(golden, "references")[1]


def test_references_of_strength_0_are_off(golden):
    features = torch.cat([golden["rank/candidate_features"], golden["rank/reference_features"]])
    inputs = {"clip_vision": Vision(features), "images": pictures(*range(6)), "by": "references"}
    on, off = Reference(pictures(*range(6, 14))), Reference(pictures(0, 1), strength=0.0)
    assert execute(CLIPRank, **inputs, references=(off, on, off))[1] == ranking(golden, "references")[1]
    with pytest.raises(ValueError, match="or all of them have strength 0; connect references or reference_images"):
        execute(CLIPRank, **inputs, references=(off, off))


def test_each_line_picks_three_as_published(golden):
    images, texts = golden["retrieval/image_features"], golden["retrieval/text_features"]
    chosen = golden["retrieval/chosen"]
    unit = torch.nn.functional.normalize
    found = picks(unit(images, dim=1) @ unit(texts, dim=1).T)
    assert [order[:8] for order in found] == [row[:8].tolist() for row in chosen]
    table = {f"element {i}": vector for i, vector in enumerate(texts)}
    shown, report = execute(
        CLIPRank,
        clip_vision=Vision(images),
        images=pictures(*range(len(images))),
        text="\n".join(table),
        clip=clip_of(table),
    )
    assert numbers_of(shown) == chosen[:, :3].flatten().tolist()
    assert report.splitlines()[1].startswith('"element 1": picture 13: ')


def test_a_line_for_which_few_are_left_repeats_its_own():
    table = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 1.0])}
    features = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4]])
    shown, _ = execute(
        CLIPRank, clip_vision=Vision(features), images=pictures(0, 1, 2, 3), text="a\n\nb\n", clip=clip_of(table)
    )
    assert numbers_of(shown) == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": ""}, "text is empty"),
        ({"clip": None}, "clip is not connected"),
        ({"by": "references"}, "references are not connected"),
        ({"by": "mean"}, "references are not connected"),
        ({"by": "beauty"}, 'by is "beauty"; choose one of text, references, mean'),
        ({"clip_vision": SimpleNamespace(encode_image=lambda image: SimpleNamespace())}, "shares no space with texts"),
        ({"clip": clip_of({"a": torch.ones(768)})}, "clip makes vectors of 768, clip_vision of 4"),
        ({"clip": StubCLIP({"a": torch.zeros(1, 7, 8)})}, "clip makes no pooled vector"),
        ({"clip_vision": Vision(torch.full((3, 4), torch.nan))}, "clip_vision produced NaN"),
        ({"images": torch.zeros(0, 8, 8, 3)}, "images has no picture"),
    ],
)
def test_bad_inputs(inputs, message):
    good = {"clip_vision": Vision(torch.rand(3, 4)), "images": pictures(0, 1, 2), "text": "a"}
    with pytest.raises(ValueError, match=message):
        execute(CLIPRank, **{**good, "clip": clip_of({"a": torch.rand(4)}), **inputs})

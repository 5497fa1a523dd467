"""The ResAdapter nodes: bad inputs and bad files are answered in one sentence, before anything is patched."""

import math
import shutil

import comfy.model_base
import pytest
import torch
from support.models import execute, tiny_model
from support.resadapter_sets import (  # noqa: F401 (fixture)
    GOLDEN_SETS,
    LORA,
    NORMS,
    POCKET_SET,
    files,
    folder,
    golden_set,
    put,
    with_set,
)

from pack.nodes.resadapter.resadapter_node import ResAdapter, ResAdapterExport, Resolution

SD15, SDXL = "tiny_resadapter_v2_sd1.5", "tiny_resadapter_v2_sdxl"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def refused(model, name, says, **inputs):
    with pytest.raises(ValueError, match=says) as caught:
        with_set(model, name, **inputs)
    assert "\n" not in str(caught.value)
    assert not model.patches


def test_another_family(model, folder):  # noqa: F811
    refused(model, SDXL, r"this is the SDXL ResAdapter \(68 norms, 4 convs\); the model is SD1.5")
    refused(tiny_model("sdxl"), SD15, r"this is the SD1.5 ResAdapter \(88 norms, 6 convs\); the model is SDXL")
    # SD2 has the shapes of SD1.5
    refused(tiny_model("sd2", seed=1), SD15, "works on SD1.5 and SDXL; this model is SD2.x")


@pytest.mark.parametrize("half", [0, 1], ids=["LoRA", "norms"])
def test_halves_of_another_family(model, half, folder):  # noqa: F811
    put(folder / "half", **{"a.safetensors": golden_set(SDXL)[half]})
    refused(model, "half", "this is the SDXL ResAdapter")


def test_another_kind_of_model(model, folder):  # noqa: F811
    other = model.clone()
    other.model = comfy.model_base.BaseModel.__new__(comfy.model_base.BaseModel)
    torch.nn.Module.__init__(other.model)
    other.model.model_config = model.model.model_config
    other.model.diffusion_model = torch.nn.Linear(1, 1)
    refused(other, SD15, "this model is BaseModel")


def changed(half, **edits):
    weights = dict(golden_set(SD15)[half])
    for key, tensor in edits.items():
        key = next(name for name in weights if name.endswith(key.replace("__", ".")))
        if tensor is None:
            del weights[key]
        else:
            weights[key] = tensor
    return weights


WRONG = {
    "an unknown key": (
        lambda: golden_set(SD15)[0] | {"conv_in.weight": torch.ones(3)},
        "contains conv_in.weight, which no",
    ),
    "a norm that no ResAdapter has": (
        lambda: golden_set(SD15)[1] | {"down_blocks.0.attentions.0.norm1.weight": torch.ones(32)},
        "changes weight of down_blocks_0_attentions_0_norm1",
    ),
    "a convolution that no ResAdapter has": (
        lambda: {
            "down_blocks.3.resnets.0.conv1.lora_A.weight": torch.ones(2, 64, 3, 3),
            "down_blocks.3.resnets.0.conv1.lora_B.weight": torch.ones(64, 2, 1, 1),
        },
        "changes weight of down_blocks_3_resnets_0_conv1",
    ),
    "a mis-shaped norm": (
        lambda: changed(1, mid_block__resnets__0__norm1__bias=torch.ones(32)),
        r"bias of mid_block_resnets_0_norm1 in adapter_set wrong has the shape \(32,\), this model needs \(64,\)",
    ),
    "a half without axes": (
        lambda: changed(0, up_blocks_2_upsamplers_0_conv__lora_down__weight=torch.ones(())),
        r"the LoRA of up_blocks_2_upsamplers_0_conv in adapter_set wrong has no rank",
    ),
    "a LoRA of rank 0": (
        lambda: changed(0, up_blocks_2_upsamplers_0_conv__lora_down__weight=torch.ones(0, 64, 3, 3)),
        r"the LoRA of up_blocks_2_upsamplers_0_conv in adapter_set wrong has no rank",
    ),
    "an alpha of several values": (
        lambda: changed(0, down_blocks_0_downsamplers_0_conv__alpha=torch.ones(3)),
        r"down_blocks_0_downsamplers_0_conv in adapter_set wrong has",
    ),
    "a mis-shaped convolution": (
        lambda: changed(0, up_blocks_2_upsamplers_0_conv__lora_down__weight=torch.ones(4, 48, 3, 3)),
        r"LoRA down of up_blocks_2_upsamplers_0_conv in adapter_set wrong has the shape \(4, 48, 3, 3\)",
    ),
    "half a pair": (
        lambda: changed(0, up_blocks_2_upsamplers_0_conv__lora_down__weight=None),
        "lacks the LoRA's down weight of up_blocks_2",
    ),
    "two ranks": (
        lambda: changed(0, up_blocks_2_upsamplers_0_conv__lora_up__weight=torch.ones(64, 8, 1, 1)),
        "LoRA up of up_blocks_2",
    ),
    "NaN in a norm": (
        lambda: changed(1, up_blocks__3__resnets__1__norm2__weight=torch.full((32,), math.nan)),
        "NaN or infinite values at up_blocks.3.resnets.1.norm2.weight",
    ),
    "NaN in the LoRA": (
        lambda: changed(0, down_blocks_0_downsamplers_0_conv__alpha=torch.tensor(math.inf).half()),
        "NaN or infinite values at lora_unet_down_blocks_0_downsamplers_0_conv.alpha",
    ),
    "differences for norms": (
        lambda: {key: tensor - tensor.mean() for key, tensor in golden_set(SD15)[1].items()},
        "look like differences",
    ),
    "two adapters in one": (
        lambda: {f"mid_block.lora_A.{name}.weight": torch.ones(2, 64, 3, 3) for name in ("one", "two")},
        "twice",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files(model, wrong, folder):  # noqa: F811
    weights, says = WRONG[wrong]
    put(folder / "wrong", **{"a.safetensors": weights()})
    refused(model, "wrong", says)


def test_a_wrong_half_stops_the_whole(model, folder):  # noqa: F811
    put(folder / "wrong", **{LORA: golden_set(SD15)[0], NORMS: WRONG["a mis-shaped norm"][0]()})
    refused(model, "wrong", "nothing was patched")


def test_sets_that_are_not_one_set(model, folder):  # noqa: F811
    put(folder / "twice", **{"a.safetensors": golden_set(SD15)[0], "b.safetensors": golden_set(SD15)[0]})
    refused(model, "twice", "contains two sets")
    put(folder / "mixed", **{LORA: golden_set(SD15)[0], NORMS: golden_set(SDXL)[1]})
    for kind in ("sd15", "sdxl"):
        refused(tiny_model(kind), "mixed", "its two files are for SD1.5 and SDXL")


@pytest.mark.parametrize("inputs", [{"alpha": math.nan}, {"alpha": math.inf}, {"norm_strength": math.nan}])
def test_strengths_that_are_no_numbers(model, inputs, folder):  # noqa: F811
    refused(model, SD15, f"{next(iter(inputs))} is (nan|inf); enter a number", **inputs)


@pytest.mark.parametrize("node", [ResAdapter, ResAdapterExport, Resolution])
def test_a_set_that_is_not_there(node, folder):  # noqa: F811
    assert node.validate_inputs(adapter_set=SD15) is True
    # a link gives no value before the run
    assert node.validate_inputs(adapter_set=None) is True
    answer = node.validate_inputs(adapter_set="gone")
    assert answer.startswith('adapter_set "gone" is not in') and SDXL in answer and str(folder) in answer
    assert "is not in" in node.validate_inputs(adapter_set="../loras")


def test_an_empty_folder_says_where_to_put_files(model, folder):  # noqa: F811
    shutil.rmtree(folder)
    (combo,) = [i for i in ResAdapter.define_schema().inputs if i.id == "adapter_set"]
    assert combo.options == ["none found: put files into models/resadapter and refresh the page", POCKET_SET]
    assert "nothing is there yet" in ResAdapter.validate_inputs(adapter_set=combo.options[0])
    refused(model, combo.options[0], "nothing is there yet")
    (combo,) = [i for i in Resolution.define_schema().inputs if i.id == "adapter_set"]
    assert combo.options == ["none", POCKET_SET] and Resolution.validate_inputs(adapter_set="none") is True


def test_a_replaced_file_is_read_anew(folder):  # noqa: F811
    before = ResAdapter.fingerprint_inputs(adapter_set=SD15, alpha=1.0)
    assert before == ResAdapter.fingerprint_inputs(adapter_set=SD15, alpha=1.0)
    put(folder / SD15, **{LORA: {"a": torch.ones(1)}})
    changed = ResAdapter.fingerprint_inputs(adapter_set=SD15, alpha=1.0)
    assert before != changed
    # the other half of the set counts too
    put(folder / SD15, **{NORMS: {"b": torch.ones(1)}})
    assert ResAdapter.fingerprint_inputs(adapter_set=SD15, alpha=1.0) not in (before, changed)
    assert Resolution.fingerprint_inputs(adapter_set="none") == ResAdapter.fingerprint_inputs(adapter_set=None)


@pytest.mark.parametrize("choice", [{"a": 1}, ["a"], 3], ids=str)
@pytest.mark.parametrize("node", [ResAdapter, ResAdapterExport, Resolution])
def test_a_workflow_that_holds_something_else_than_a_name(node, choice, model, folder):  # noqa: F811
    assert "is not in" in node.validate_inputs(adapter_set=choice)
    assert node.fingerprint_inputs(adapter_set=choice) == node.fingerprint_inputs(adapter_set=None)
    with pytest.raises(ValueError, match="is not in"):
        execute(ResAdapter, model=model, adapter_set=choice)


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a\\b", "../a", "..", "/tmp/a", "C:a", ".hidden", "a..b", "a\nb", "a\0", "~/a", "a*"]
)
def test_file_names_that_are_more_than_names(model, name, folder):  # noqa: F811
    before = files(folder.parent)
    with pytest.raises(ValueError, match="enter a bare name"):
        execute(ResAdapterExport, model=model, adapter_set=SD15, file_name=name)
    assert files(folder.parent) == before


def test_an_export_for_another_family_writes_nothing(model, folder):  # noqa: F811
    with pytest.raises(ValueError, match="this is the SDXL ResAdapter"):
        execute(ResAdapterExport, model=model, adapter_set=SDXL, file_name="mine")
    assert not (folder.parent / "loras").exists()


def test_the_golden_sets_are_listed_by_folder(folder):  # noqa: F811
    (combo,) = [i for i in ResAdapter.define_schema().inputs if i.id == "adapter_set"]
    assert combo.options == [*sorted(path.name for path in GOLDEN_SETS.glob("tiny_*")), POCKET_SET]

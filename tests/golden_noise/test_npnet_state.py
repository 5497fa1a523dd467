"""What a training belongs to, what it may replace, and what it makes of damaged files, a full disk and a cancel."""

import errno
import os
import pathlib

import comfy.model_management as mm
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import execute, tiny_model
from support.noise_pairs import collect, learn, make_pairs
from support.npnets import small_weights
from support.references import draw
from support.thorough import few_of

from pack.nodes.files import training_state
from pack.nodes.files.output_folder import output_folder
from pack.nodes.files.safe_files import read_tensors
from pack.nodes.golden_noise import npnet_training
from pack.nodes.golden_noise.noise_pairs import _Seeded
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.golden_noise.npnet_training_node import TrainNPNet
from pack.nodes.golden_noise.redenoise_node import Redenoise

pytestmark = pytest.mark.usefixtures("folders")


def equal(a, b):
    return all(torch.equal(a.weights[key], b.weights[key]) for key in a.weights)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def giving_nan(model):
    model = model.clone()
    model.set_model_unet_function_wrapper(lambda f, a: f(a["input"], a["timestep"], **a["c"]) * float("nan"))
    return model


@pytest.fixture
def said(monkeypatch):
    """What the nodes warn of."""
    from pack.nodes.golden_noise import redenoised

    found = []
    for module in (training_state, npnet_training, redenoised):
        monkeypatch.setattr(module, "warn_user", found.append)
    return found


# what it may replace


@pytest.mark.parametrize("kind", ["text", "network", "folder", "dead link"])
def test_a_network_of_others_is_refused_at_the_start(kind, folders, monkeypatch):
    make_pairs()
    path = folders / "npnet" / "precious.safetensors"
    path.parent.mkdir()
    if kind == "text":
        path.write_bytes(b"took a night")
    elif kind == "network":
        save_file(small_weights(), path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(folders / "nothing")
    before = path.read_bytes() if path.is_file() else None
    monkeypatch.setattr(npnet_training, "_one_step", None)  # it gets not so far
    with pytest.raises(ValueError, match=r"precious.safetensors already exists .*enter another file_name"):
        learn(name="precious")
    assert before == (path.read_bytes() if path.is_file() else None)
    assert len(list(path.parent.iterdir())) == 1


def test_its_own_network_is_replaced(folders):
    folder = make_pairs()
    first, _ = learn(2)
    second, _ = learn(4)
    assert not equal(first, second) and equal(second, learn(4, "whole")[0])
    # also where the state is lost: the network says which training it is of
    (folder / "mine.training").unlink()
    assert equal(learn(4)[0], second)
    # one of the same training under another name is that one's
    (folders / "npnet" / "other.safetensors").write_bytes((folders / "npnet" / "mine.safetensors").read_bytes())
    with pytest.raises(ValueError, match="already exists"):
        learn(4, "other")


def test_a_network_that_came_meanwhile_is_not_replaced(folders, monkeypatch):
    make_pairs()
    path, step = folders / "npnet" / "mine.safetensors", npnet_training._one_step

    def copying(*args):
        path.write_bytes(b"took a night")
        step(*args)

    monkeypatch.setattr(npnet_training, "_one_step", copying)
    with pytest.raises(ValueError, match="already exists"):
        learn(2)
    assert path.read_bytes() == b"took a night"
    path.unlink()
    monkeypatch.setattr(npnet_training, "_one_step", None)
    # nothing is lost: it is written without a step
    assert equal(learn(2)[0], net_from(read_tensors(path)[0], "mine"))


# what it belongs to


@pytest.mark.parametrize("change", few_of(["pairs", "more pairs", "size", "start network", "settings"], "pairs"))
def test_another_training_starts_anew_and_says_so(change):
    start = net_from(small_weights(), "start")
    make_pairs()
    learn(3, npnet=start)
    inputs = {"npnet": start}
    if change == "start network":
        inputs = {"npnet": net_from({key: 1.01 * t for key, t in small_weights().items()}, "start")}
    elif change == "settings":
        inputs["seed"] = 1
    else:
        make_pairs(**{"pairs": {"seed": 100}, "more pairs": {"count": 3}, "size": {"side": 16}}[change])
    net, report = learn(3, **inputs)
    fresh, plainly = learn(3, "fresh", **inputs)
    assert equal(net, fresh)
    named = {"more pairs": "pairs", "size": "pairs"}.get(change, change)
    assert f"mine.safetensors (started anew: other {named}" in report and "anew" not in plainly
    assert "anew" not in learn(3, **inputs)[1]


def stopping(at):
    """A step that is cancelled before the one of that number."""
    step = npnet_training._one_step

    def standing(weights, optimizer, batch, number):
        if number == at:
            raise mm.InterruptProcessingException
        return step(weights, optimizer, batch, number)

    return standing


def test_one_that_ends_before_its_first_step_leaves_the_state_of_another(monkeypatch):
    folder = make_pairs()
    state = folder / "mine.training"
    for at, inputs in ((3, {}), (0, {"batch_size": 64}), (3, {})):
        with monkeypatch.context() as during:
            during.setattr(npnet_training, "_one_step", stopping(at))
            with pytest.raises(mm.InterruptProcessingException):
                learn(5, **inputs)
        assert read_tensors(state)[1]["done"] == "3"
        assert not state.with_name("mine.training.before").exists()
    # and goes on where it was
    assert equal(learn(5)[0], learn(5, "unbroken")[0])


# damaged files


def damaged(path, kind):
    if isinstance(kind, bytes):
        path.write_bytes(kind)
        return
    tensors, metadata = read_tensors_of_state(path)
    key = next(key for key in tensors if key.startswith("exp_avg/"))
    if kind == "a moment is missing":
        del tensors[key]
    elif kind == "a weight is missing":
        del tensors["weights/alpha"]
    elif kind == "another shape":
        tensors[key] = torch.cat([tensors[key].flatten(), torch.zeros(1)])
    elif kind == "nan":
        tensors[key] = tensors[key] * torch.nan
    else:
        metadata["done"] = "a few"
    save_file(tensors, path, metadata)


def read_tensors_of_state(path):
    tensors, metadata = read_tensors(path)
    return dict(tensors), dict(metadata)


KINDS = [b"", b"text", b"\x02\0\0\0\0\0\0\0{}", "a moment is missing", "a weight is missing", "another shape", "nan",
         "steps"]  # fmt: skip


@pytest.mark.parametrize("kind", few_of(KINDS, KINDS[0], "nan"), ids=range(len(KINDS)))
def test_a_damaged_state_is_set_aside(kind, said):
    folder = make_pairs()
    state = folder / "mine.training"
    first, _ = learn(2)
    damaged(state, kind)
    content = state.read_bytes()
    assert equal(learn(2)[0], first)
    assert "mine.training.damaged1, and the training starts anew" in " ".join(said)
    assert (folder / "mine.training.damaged1").read_bytes() == content
    said.clear()
    learn(2)
    assert "damaged" not in " ".join(said)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no golden", "lacks noise or golden"),
        ("whole numbers", "holds whole numbers"),
        ("two shapes", r"its shapes are \[1, 4, 8, 8\] and \[1, 4, 8, 4\]"),
        ("nan", "NaN or infinite values at golden"),
        ("text", "neither a safetensors nor"),
        ("empty", "is empty"),
        ("folder", "is a folder"),
        ("prompt gone", r"the prompt of pair_a_00.safetensors, is no longer in"),
        ("prompt flat", r"the prompt of pair_a_00.safetensors, is not a prompt"),
    ],
)
def test_a_damaged_pair_is_named_with_what_to_do(what, says):
    path = make_pairs() / "pair_a_00.safetensors"
    noise, golden = (load_file(path)[name] for name in ("noise", "golden"))
    prompt = path.with_name("prompt_a.safetensors")
    if what == "prompt gone":
        prompt.unlink()
    elif what == "prompt flat":
        save_file({"prompt": torch.ones(77)}, prompt)
    elif what in ("text", "empty"):
        path.write_bytes(b"some text" if what == "text" else b"")
    elif what == "folder":
        path.unlink()
        path.mkdir()
    else:
        save_file(
            {
                "no golden": {"noise": noise},
                "whole numbers": {"noise": noise.int(), "golden": golden.int()},
                "two shapes": {"noise": noise, "golden": golden[..., :4].contiguous()},
                "nan": {"noise": noise, "golden": golden * torch.nan},
            }[what],
            path,
        )
    with pytest.raises(ValueError, match=says) as error:
        learn()
    assert "delete that pair and run Collect Noise Pairs again" in str(error.value)
    assert "download" not in str(error.value) and "pair_a_00" in str(error.value)


# the disk, and the cancel


def test_a_disk_that_takes_nothing_is_seen_before_the_first_step(monkeypatch):
    make_pairs()
    monkeypatch.setattr(npnet_training, "_one_step", None)  # it gets not so far
    monkeypatch.setattr(pathlib.Path, "mkdir", full)
    with pytest.raises(ValueError, match="is full; free some space"):
        learn()


def tensor_bytes(path):
    """Of a safetensors file, without its table of contents."""
    return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")


def test_the_room_that_is_tried_is_the_room_that_is_needed(folders, monkeypatch):
    folder = make_pairs()
    tried = {}
    with monkeypatch.context() as during:
        during.setattr(npnet_training, "try_writing", lambda path, size: tried.update({path: size}))
        during.setattr(npnet_training, "_one_step", None)
        (folders / "npnet").mkdir()
        with pytest.raises(TypeError):
            learn()
    learn()
    network, state = folders / "npnet" / "mine.safetensors", folder / "mine.training"
    assert list(tried) == [network, state]
    assert tried[network] == tensor_bytes(network)
    # AdamW counts the steps of each weight in four bytes
    assert tried[state] == tensor_bytes(network) + tensor_bytes(state) - 4 * len(load_file(network))
    # what is trained already needs no trial
    monkeypatch.setattr(npnet_training, "try_writing", None)
    learn()


def test_a_cancel_on_a_full_disk_is_a_cancel(monkeypatch):
    make_pairs()
    monkeypatch.setattr(npnet_training, "write_tensors", full)
    monkeypatch.setattr(npnet_training, "try_writing", full)
    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        learn()


def test_a_cancel_on_a_disk_that_filled_up_is_a_cancel(monkeypatch, said):
    make_pairs()
    step = npnet_training._one_step

    def last(*args):
        step(*args)
        monkeypatch.setattr(training_state, "put_tensors", full)
        mm.interrupt_current_processing()

    with monkeypatch.context() as during:
        during.setattr(npnet_training, "_one_step", last)
        with pytest.raises(mm.InterruptProcessingException):
            learn(3)
    assert "the training's state mine.training cannot be written into" in said[0] and "No space left" in said[0]


def test_leftovers_of_killed_trainings_go(folders):
    folder = make_pairs()
    (folders / "npnet").mkdir()
    gone = [place / f"x.1-{'ab' * 16}.part" for place in (folder, folders / "npnet")]
    for path in gone:
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    learn()
    assert not any(path.exists() for path in gone)
    assert sorted(path.suffix for path in folder.iterdir()) == [".safetensors"] * 3 + [".training"]


def test_a_training_that_goes_wrong_keeps_the_last_good_state(said, monkeypatch):
    folder = make_pairs()
    monkeypatch.setattr(npnet_training, "SAVE_EVERY", 1)
    step = npnet_training._one_step

    def going_wrong(weights, optimizer, batch, number):
        step(weights, optimizer, batch, number)
        if number == 1:
            weights["alpha"].data.fill_(torch.nan)

    monkeypatch.setattr(npnet_training, "_one_step", going_wrong)
    with pytest.raises(ValueError, match="the loss at step 2 is NaN or infinite"):
        learn(5)
    assert read_tensors(folder / "mine.training")[1]["done"] == "1" and not said


# what is no number


def test_pairs_that_are_no_numbers_are_not_written(folders):
    model = tiny_model()
    with pytest.raises(ValueError, match="seed 0 has NaN or infinite values.*--fp32-unet"):
        collect(giving_nan(model))
    folder = folders / "output" / "npnet_pairs"
    assert [path.name[:6] for path in folder.iterdir()] == ["prompt"]


def test_a_bad_pair_is_collected_again(folders, caplog):
    model = tiny_model()
    collect(model, count=2)
    good, kept = sorted((folders / "output" / "npnet_pairs").glob("pair_*"))
    content, stamp = good.read_bytes(), kept.stat().st_mtime_ns
    save_file({name: t * torch.nan for name, t in load_file(good).items()}, good)
    collect(model, count=2)
    assert good.read_bytes() == content and kept.stat().st_mtime_ns == stamp
    assert f"{good.name} contains NaN or infinite values" in caplog.text and "it is collected again" in caplog.text


def test_redenoise_keeps_the_plain_noise_and_says_so(said):
    model = tiny_model()
    texts = {name: [[draw(1, 77, 32, seed=i), {}]] for i, name in enumerate(("positive", "negative"))}
    (noise,) = execute(Redenoise, noise=_Seeded(1), model=giving_nan(model), **texts)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    assert torch.equal(noise.generate_noise(latent), _Seeded(1).generate_noise(latent))
    assert "the noise stays plain; start ComfyUI with --fp32-unet" in said[0]


# names and numbers at their ends


def test_after_the_last_seed_comes_the_first(folders):
    collect(tiny_model(), count=2, seed=2**64 - 1)
    found = sorted(path.stem.split("_")[-1] for path in (folders / "output" / "npnet_pairs").glob("pair_*"))
    assert found == ["0", str(2**64 - 1)]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_learning_rate_that_is_none(rate):
    make_pairs()
    with pytest.raises(ValueError, match=r"^learning_rate is .*enter a number from"):
        learn(learning_rate=rate)


@pytest.mark.parametrize("name", ["x" * 255, "\ud800", "a\0b", "CON", "a:b"], ids=ascii)
def test_names_that_some_system_cannot_write(name):
    make_pairs()
    with pytest.raises(ValueError, match="^file_name is"):
        learn(name=name)
    with pytest.raises(ValueError, match="^folder is"):
        execute(TrainNPNet, folder=name)


def test_a_folder_of_links_in_a_circle(folders):
    (folders / "output" / "circle").symlink_to("circle")
    (folders / "output" / "out").symlink_to(folders)
    for name in ("circle", "out"):
        with pytest.raises(ValueError, match="inside ComfyUI's output folder"):
            output_folder(f"{name}/x")

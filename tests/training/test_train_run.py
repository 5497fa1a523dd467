"""Whole trainings on the host's tiny models: what they write and hand on, what they leave alone, how they go on."""

from dataclasses import replace

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete
from support.compare import relative
from support.thorough import few_of
from support.trainings import SIDE, STEPS, drawn, pictures_for, trained, weights_of

from pack.nodes.files.safe_files import tensors_in
from pack.nodes.text_contexts.concept_loader import load_concept
from pack.nodes.text_contexts.edlora import attach_edlora
from pack.nodes.training.methods import METHODS
from pack.nodes.training.pictures_wire import ClassPictures, TrainingPictures
from pack.nodes.training.train_request import TrainingRequest
from pack.nodes.training.train_run import train_concept
from pack.nodes.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("folders")


def loaded(host, method, words):
    """The MODEL and CLIP as loaders of files give them."""
    if method == "ED-LoRA":
        return attach_edlora(host.model, host.clip, "it.safetensors", strength_model=1.0, strength_clip=1.0)[:2]
    model, clip = host.model, host.clip
    if method not in ("word", "crossed word"):
        file = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("loras", "it.safetensors"))
        plain = {name: t for name, t in file.items() if not name.startswith("bundle_emb.")}
        model, clip = comfy.sd.load_lora_for_models(model, clip, plain, 1.0, 1.0)
    names = [word for word in words.split() if word.startswith("<")]
    several = {name: f"it_{name.strip('<>')}.safetensors" if len(names) > 1 else "it.safetensors" for name in names}
    for name, file in several.items():
        clip, _ = load_concept(clip, file, name)
    return model, clip


@pytest.mark.parametrize("method", few_of(["word", "crossed word", "LoRA", "ED-LoRA", "scene", "parts"], "ED-LoRA"))
def test_what_is_handed_on_is_what_the_files_give(host, method):
    before = weights_of(host)
    made = trained(host, method)
    assert weights_of(host) == before
    assert made.previews.shape == (1, SIDE, SIDE, 3)
    assert f"{STEPS} steps" in made.report and "loss" in made.report
    words = made.words.replace(" with ", " ").replace(" and ", " ")
    found = drawn(made.model, made.clip, words)
    assert relative(found, drawn(*loaded(host, method, words), words)) < 1e-5
    if "word" not in method:
        assert relative(found, drawn(host.model, made.clip, words)) > 1e-3


def cancelled_after_two_steps(host, method, **asked):
    """A training that ends as Cancel ends it."""
    real = Trainer.update

    def update(trainer):
        norm = real(trainer)
        if trainer.optimizer.done == 2:
            mm.interrupt_current_processing()
        return norm

    with pytest.MonkeyPatch.context() as during:
        during.setattr(Trainer, "update", update)
        with pytest.raises(mm.InterruptProcessingException):
            trained(host, method, **asked)


@pytest.mark.parametrize("method", few_of(["word", "ED-LoRA", "scene", "parts"], "word"))
def test_cancelled_and_taken_up_again_it_ends_as_unbroken(host, method, folders, monkeypatch):
    whole = trained(host, method, file_name="whole")
    before, real = weights_of(host), Trainer.update
    cancelled_after_two_steps(host, method)
    assert weights_of(host) == before
    assert not [path for kind in ("loras", "embeddings") for path in (folders / kind).glob("it*")]
    steps = []
    monkeypatch.setattr(Trainer, "update", lambda trainer: (steps.append(trainer.optimizer.done), real(trainer))[1])
    trained(host, method)
    assert steps == [2, 3]
    for kind in ("loras", "embeddings"):
        for path in (folders / kind).glob("whole*"):
            expected, found = tensors_in(path)[0], tensors_in(path.with_name(path.name.replace("whole", "it")))[0]
            assert expected.keys() == found.keys()
            assert all(torch.equal(found[name], t) for name, t in expected.items())
    assert whole.words


@pytest.mark.slow
def test_pictures_of_the_class_count(host):
    of_class = ClassPictures("class", host.latents, "5 33")
    plain = trained(host, "LoRA", file_name="plain")
    kept = trained(host, "LoRA", class_pictures=of_class, prior_weight=1.0)
    assert relative(drawn(kept.model, kept.clip, "99"), drawn(plain.model, plain.clip, "99")) > 1e-3


def test_pictures_of_the_class_that_are_left_out_change_nothing(host, folders):
    of_class = ClassPictures("class", torch.zeros(1, 4, 9, 9), "5 33")
    plain = trained(host, "word", steps=1, file_name="plain")
    other = trained(host, "word", steps=1, file_name="other", class_pictures=of_class, prior_weight=1.0)
    found, expected = (tensors_in(folders / "embeddings" / f"{name}.safetensors")[0] for name in ("other", "plain"))
    assert torch.equal(found["clip_l"], expected["clip_l"]) and other.words == plain.words


@pytest.mark.parametrize("method", few_of(["word", "LoRA", "ED-LoRA", "parts"], "parts"))
def test_pictures_of_one_subject_may_come_in_several_sizes(host, method):
    subjects = pictures_for(host, method).subjects
    tall = replace(subjects[0], images=host.images[:1].transpose(1, 2))
    made = trained(host, method, pictures=TrainingPictures((*subjects, tall)))
    assert made.words == trained(host, method, file_name="other").words
    assert f"{len(subjects) + 2} pictures" in made.report


def test_a_part_without_a_mask_leaves_the_map_of_the_other_one(host, monkeypatch, caplog):
    found, real = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer, batch: (found.append(real(trainer, batch)), found[-1])[1])
    first, second = pictures_for(host, "parts").subjects
    trained(host, "parts", steps=1, pictures=TrainingPictures((first, replace(second, masks=None))))
    assert 0 < float(found[0]["loss_attention"]) < 0.01
    assert "1 of 3 pictures have no mask" in caplog.text


REFUSED = {
    "class_pictures is empty": ("LoRA", {"prior_weight": 1.0}),
    "learns from Scene Pictures": ("scene", {"of": "word"}),
    "needs two or more subjects": ("parts", {"of": "word"}),
    "file_name is": ("word", {"file_name": "a/b"}),
    "rank is 500": ("LoRA", {"options": {"rank": 500}}),
    "t_min is 600": ("word", {"options": {"t_min": 600, "t_max": 5}}),
    "multiple of 8": ("word", {"size": 100}),
    "only ED-LoRA files": ("word", {"options": {"layers": "each"}}),
    "lr_words is nan": ("word", {"options": {"lr_words": float("nan")}}),
}


def test_a_training_without_a_vae_is_refused(host):
    with pytest.raises(ValueError, match="vae is empty; connect the checkpoint's VAE"):
        train_concept(host.model, host.clip, None, pictures_for(host, "word"), TrainingRequest(size=SIDE))


def test_a_model_of_few_noise_levels_is_refused(host):
    (few,) = ModelSamplingDiscrete().patch(host.model, "lcm", False)
    with pytest.raises(ValueError, match="50 noise levels.*training needs 1000"):
        trained(host, "word", model=few)


@pytest.mark.parametrize("prediction", ["v_prediction", "eps", "edm"])
def test_a_model_of_continuous_noise_is_refused(host, prediction):
    (continuous,) = ModelSamplingContinuousEDM().patch(host.model, prediction, 120.0, 0.002)[:1]
    says = "neither noise nor velocity" if prediction == "edm" else "reads the noise level itself.*1000 timesteps"
    with pytest.raises(ValueError, match=says):
        trained(host, "word", model=continuous)


@pytest.mark.parametrize("prediction", ["v_prediction", "eps"])
def test_a_model_of_1000_levels_is_trained_whoever_chose_them(host, prediction):
    (discrete,) = ModelSamplingDiscrete().patch(host.model, prediction, True)
    assert "1 steps" in trained(host, "word", steps=1, model=discrete).report


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_trained_is_refused(host, said):
    method, asked = REFUSED[said]
    asked = dict(asked)
    before = weights_of(host)
    with pytest.raises(ValueError, match=said):
        trained(host, method, pictures=pictures_for(host, asked.pop("of", method)), **asked)
    assert weights_of(host) == before


def test_a_file_of_somebody_is_not_replaced(host, folders):
    (folders / "embeddings" / "it.safetensors").write_bytes(b"theirs")
    with pytest.raises(ValueError, match="enter another file_name"):
        trained(host, "word")
    assert (folders / "embeddings" / "it.safetensors").read_bytes() == b"theirs"


def test_a_word_may_have_a_lora_beside_it(host, folders):
    made = trained(host, "word", options={"lr_unet": 1e-2})
    tensors, metadata = tensors_in(folders / "loras" / "it.safetensors")
    assert {"bundle_emb.<it>.clip_l", "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.alpha"} <= set(
        tensors
    )
    assert metadata["ss_network_dim"] == "2" and str(folders) not in str(metadata)
    assert relative(drawn(made.model, made.clip, "<it>"), drawn(host.model, made.clip, "<it>")) > 1e-3


STATE = "output/personalization_training/it.training"


def done_in(path):
    return int(tensors_in(path)[1]["done"])


def test_cancelled_before_its_first_step_it_leaves_the_state_of_other_settings(host, folders, monkeypatch):
    cancelled_after_two_steps(host, "word")
    with monkeypatch.context() as during:
        during.setattr(Trainer, "step", fail)
        with pytest.raises(RuntimeError, match="in its first step"):
            trained(host, "word", options={"lr_words": 1e-3})
    assert done_in(folders / STATE) == 2


def test_the_state_of_other_settings_is_set_aside_and_that_is_said(host, folders, caplog):
    cancelled_after_two_steps(host, "word")
    made = trained(host, "word", options={"lr_words": 1e-3})
    assert "it.training is the state of a training with other settings (2 steps)" in caplog.text
    assert "started anew: other settings" in made.report
    assert (done_in(folders / STATE), done_in(folders / f"{STATE}.before")) == (STEPS, 2)


@pytest.mark.parametrize("method", ["scene", "parts"])
def test_more_steps_go_on_from_the_end(host, method, monkeypatch):
    """The first phase, a share of the steps, has ended when it did."""
    trained(host, method)
    steps, real = [], Trainer.update
    monkeypatch.setattr(
        Trainer,
        "update",
        lambda trainer: (steps.append((trainer.optimizer.done, trainer.losses.warm_up)), real(trainer)),
    )
    first = round(METHODS[method].words_first * STEPS / METHODS[method].steps)
    made = trained(host, method, steps=2 * STEPS)
    assert steps == [(step, first) for step in range(STEPS, 2 * STEPS)]
    assert f"{2 * STEPS} steps" in made.report


def test_fewer_steps_than_were_done_are_said(host):
    trained(host, "word")
    assert f"{STEPS} steps (done before; 2 were asked for)" in trained(host, "word", steps=2).report


def test_another_layer_of_the_text_encoder_is_another_training(host):
    cancelled_after_two_steps(host, "word")
    skipped = host.clip.clone()
    skipped.clip_layer(-2)
    assert "started anew: other model" in trained(host, "word", clip=skipped).report


def fail(*args):
    raise RuntimeError("in its first step")

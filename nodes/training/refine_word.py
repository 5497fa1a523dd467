"""A word that a CLIP knows, refined for one prompt: it keeps its look and leaves the rest of the prompt as it was.

CoRe (arXiv 2408.15914) without pictures and without a UNet: the text encoder alone runs.
"""

from contextlib import ExitStack
from dataclasses import replace

import comfy.model_management as mm
import comfy.utils
import torch

from ...kernels.training_losses import context_loss
from ..host.clip_text import check_clip
from ..host.loss_curve import LossCurve
from ..host.messages import input_error, plain
from ..text_contexts.concept_words import encoders_of, with_words, words_of
from .captions import PLACE
from .learned import Learned, leaf
from .normal_weights import normal_weights, summed_apart
from .static_weights import in_one_place
from .train_losses import loss_of_pull
from .train_optimizer import TrainOptimizer
from .trained_texts import TrainedTexts
from .word_starts import check_same_length


def refine_word(clip, word, class_word, prompt, settings, pull):
    """(a CLIP whose word is refined for a prompt, words on what that changed); the CLIP that came stays as it is.

    settings: the OptimizerSettings; pull: how strongly the word is held to where it stood. Raises ValueError for a word
    that the CLIP does not know or that varies, for a class word of another length, and for a prompt without the word.
    """
    check_clip(clip)
    known = _known(clip, word.strip())
    if PLACE not in prompt and known.name not in prompt:
        raise input_error(
            f'prompt is "{prompt}" and names the word nowhere; write {PLACE} or {known.name} where it belongs'
        )
    pair = prompt.replace(known.name, PLACE)
    pair = pair.replace(PLACE, known.name), pair.replace(PLACE, class_word.strip())
    static = in_one_place(clip, "clip")
    mm.load_models_gpu([static.patcher], force_full_load=True)
    device = static.patcher.load_device
    vectors = len(known.vectors(encoders_of(clip)[0]))
    check_same_length(static, known.name, class_word, vectors)
    starts = {encoder: known.vectors(encoder)[:, 0, 0] for encoder in known.rows}
    rows = {encoder: leaf(start, device) for encoder, start in starts.items()}
    learned = Learned({known.name: rows}, pools=known.pools)
    first, last = _refined(static, learned, pair, settings, pull)
    moved = [(rows[encoder].detach() - start.to(device)).norm() for encoder, start in starts.items()]
    lengths = [start.norm() for start in starts.values()]
    made = replace(known, rows={encoder: one.detach().cpu()[:, None, None] for encoder, one in rows.items()})
    share = 100 * float(sum(moved)) / max(float(sum(lengths)), 1e-12)
    report = (
        f'{known.name} in "{pair[0]}": the rest of the prompt is off by {last:.4f}, was {first:.4f}; the word moved by '
        f"{share:.0f} % of its length in {settings.steps} steps"
    )
    return with_words(clip, [made]), plain(report)


def _refined(clip, learned, pair, settings, pull):
    """(first, last) loss of the context; the learned rows have moved."""
    optimizer = TrainOptimizer(learned, settings)
    texts, rows = TrainedTexts(clip, learned), list(learned.word_tensors().values())
    starts = [one.detach().clone() for one in rows]
    progress, curve, first = comfy.utils.ProgressBar(settings.steps), None, None
    (name,) = learned.words
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(normal_weights(clip.cond_stage_model))
        stack.enter_context(summed_apart(clip.cond_stage_model))
        for step in range(settings.steps + 1):
            mm.throw_exception_if_processing_interrupted()
            optimizer.begin()
            own, other = texts.of(pair).values()
            loss = context_loss(own.contexts[0], other.contexts[0].detach(), own.places[name])
            last = float(loss.detach())
            curve = LossCurve(last, "start") if curve is None else curve
            first = last if first is None else first
            if step < settings.steps:
                optimizer.backward(loss + pull * loss_of_pull(rows, starts))
                optimizer.step()
                curve.add(step, last)
                progress.update_absolute(step + 1, settings.steps)
            if not all(bool(torch.isfinite(one).all()) for one in rows):
                raise input_error(f"the word became NaN or infinite at step {step}; lower learning_rate")
    curve.show()
    return first, last


def _known(clip, name):
    """The Word of a CLIP by its name."""
    words = {word.name: word for word in words_of(clip)}
    if name not in words:
        listed = f"it knows {', '.join(words)}" if words else "it knows none"
        raise input_error(
            f'clip does not know the word "{name}" ({listed}); teach it with Load Concept Words or Train Concept, and '
            "enter the word as they name it"
        )
    word = words[name]
    several = any(word.vectors(encoder).shape[1:3] != (1, 1) for encoder in word.rows)
    if word.maker is not None or word.keys_as or several:
        raise input_error(
            f"{name} differs by layer, stage, timestep or between keys and values, which this node does not refine; "
            "choose a word of one row for all, such as a textual inversion"
        )
    return word

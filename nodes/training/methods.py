"""The methods of a training, each a row of settings; what a user sets stands in place of a method's own."""

import math
from dataclasses import dataclass, fields, replace

from ..host.choices import check_listed
from ..host.messages import input_error
from .lora_layers import TARGETS
from .placements import PLACEMENTS
from .train_losses import LossSettings
from .train_optimizer import SCHEDULES, OptimizerSettings

# {setting: what it may be}
LISTED = {
    "schedule": SCHEDULES,
    "start": ("class word", "crossed", "random"),
    "layers": ("one", "each", "tied"),
    "mask_loss": ("none", "region", "picture"),
    "placement": tuple(PLACEMENTS),
    "checkpoint": ("auto", "on", "off"),
    "targets": tuple(TARGETS),
}


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides a training beside its pictures."""

    words: int = 1  # how many a subject has; 0: a LoRA without a word of its own
    start: str = "class word"  # where the rows of a word begin
    vectors: int = 1  # tokens that a word takes in a prompt
    layers: str = "one"  # rows of a word: one for all cross-attentions, one each, or one per transformer ("tied")
    steps: int = 500
    per_picture: bool = False  # whether steps count per picture
    lr_words: float = 0.0
    by_batch: bool = False  # whether lr_words counts per picture of a batch
    lr_unet: float = 0.0  # of the LoRA in the UNet; 0: there is none
    lr_text: float = 0.0  # of the LoRA in the text encoders; 0: there is none
    words_first: int = 0  # steps in which only the words learn
    lr_words_first: float = 0.0  # of the words in those steps; 0: lr_words
    schedule: str = "constant"  # how learning rates fall
    batch_size: int = 1  # pictures per step
    accumulate: int = 1  # batches per step
    rank: int = 4  # of the LoRA
    targets: str = "attention"  # which layers of the UNet the LoRA changes
    lora_start: str = "normal"  # how the first factors of a LoRA are drawn
    noise: str = "area"  # how a mask counts in the loss, see LossSettings
    maps: str = ""  # which attention maps are compared with masks, see LossSettings
    prior_weight: float = 0.0  # of the loss on class pictures; 0: there are none
    mask_loss: str = "none"  # what the loss looks at
    attention_weight: float = 0.0  # how strongly the words' attention keeps to the masks
    full_identity: bool = False  # of an ED-LoRA: the second word fills its mask
    pull: float = 0.0  # how strongly words are held to where they began
    norm_limit: float | None = 0.0  # words stop at this norm; 0: never; None: at one that is measured from the CLIP
    keep_norm: bool = False  # whether words keep the norm that they began with
    context: float = 0.0  # how strongly the rest of a prompt stays as it was
    context_prompts: str = ""  # prompts with {} for that, one a line
    degrade: float = 0.0  # noise around the subject
    balance: bool = False  # whether of several concepts the one that lags learns
    noise_offset: float = 0.0  # of noise that is the same at all cells of a channel
    placement: str = "crop"  # how a picture is put on the square
    placements: int = 16  # places of a picture
    flip: bool = True  # whether half of them are mirrored
    t_min: int = 0  # the lowest timestep that is learned
    t_max: int = 999  # the highest
    clip_norm: float = 1.0  # the largest norm of the gradients; 0: any
    clip_words: bool = True  # whether that norm counts the words, too, see OptimizerSettings
    checkpoint: str = "auto"  # whether parts are computed again instead of kept
    cache_mb: int = 1024  # main memory for places of pictures

    @property
    def kind(self):
        """Of the files that it writes: "words", "LoRA" or "ED-LoRA"."""
        if self.words > 1:
            return "ED-LoRA"
        return "LoRA" if self.lr_unet or self.lr_text else "words"

    def losses(self):
        """The LossSettings of it."""
        noise = "balance" if self.balance else self.noise
        return LossSettings(
            noise=noise,
            prior_weight=self.prior_weight,
            maps=self.maps,
            attention_weight=self.attention_weight,
            full_identity=self.full_identity,
            pull=self.pull,
            context=self.context,
            warm_up=self.words_first,
        )

    def pace(self, steps):
        """The OptimizerSettings of a training of so many steps."""
        lr_words = self.lr_words * (self.batch_size if self.by_batch else 1)
        return OptimizerSettings(
            lr_words=lr_words,
            lr_unet=self.lr_unet,
            lr_text=self.lr_text,
            steps=steps,
            schedule=self.schedule,
            clip_norm=self.clip_norm,
            clip_words=self.clip_words,
            # things with parts learn all from the first step on
            words_first=0 if self.balance else self.words_first,
            lr_words_first=self.lr_words_first or lr_words,
            norm_limit=self.norm_limit,
            keep_norm=self.keep_norm,
            accumulate=self.accumulate,
        )

    def rows(self, pictures):
        """How many pictures a step looks at, those of the class included, of so many to learn from."""
        return (pictures if self.balance else self.batch_size) * (1 + (self.prior_weight > 0))

    def length(self, pictures):
        """How many steps it takes for so many pictures."""
        return math.ceil(pictures * self.steps / self.batch_size) if self.per_picture else self.steps


METHODS = {
    "word": TrainingSettings(steps=5000, lr_words=5e-4, by_batch=True, batch_size=4),
    "crossed word": TrainingSettings(
        start="crossed", vectors=2, steps=320, lr_words=5e-3, batch_size=8, pull=1e-5
    ),
    "LoRA": TrainingSettings(words=0, lr_unet=1e-4, lr_text=5e-6, prior_weight=1.0),
    "ED-LoRA": TrainingSettings(
        words=2, layers="tied", steps=500, per_picture=True, lr_words=1e-3, lr_unet=1e-4, lr_text=1e-5, batch_size=4,
        schedule="linear", lora_start="uniform", maps="levels", attention_weight=0.01, mask_loss="region",
        norm_limit=None, noise_offset=0.01, placement="human", flip=False,
    ),
    "scene": TrainingSettings(
        steps=800, lr_words=1e-4, words_first=400, lr_words_first=5e-4, lr_unet=1e-4, rank=16, noise="picture",
        maps="quarter", attention_weight=0.01, prior_weight=1.0, mask_loss="region",
    ),
    "parts": TrainingSettings(
        steps=500, lr_words=1e-4, words_first=200, lr_unet=1e-4, rank=32, targets="transformer without ff.net.0",
        noise="picture", maps="quarter", attention_weight=0.01, mask_loss="region", degrade=0.5, balance=True,
        clip_words=False,
    ),
}  # fmt: skip

# where the published ones differ
SDXL_RANKS = {"ED-LoRA": 32}


def settings_of(method, changes, steps=0, family=""):
    """The TrainingSettings of a method with what a user changed of it, {name: value}, and a length, 0 for its own.

    Raises ValueError for a method or a value that there is none of.
    """
    check_listed("method", method, tuple(METHODS))
    own = METHODS[method]
    if family == "SDXL":
        own = replace(own, rank=SDXL_RANKS.get(method, own.rank))
    # a rate that a user enters is meant as it stands
    made = replace(own, **changes, by_batch=own.by_batch and "lr_words" not in changes)
    for field in fields(made):
        value = getattr(made, field.name)
        if field.name in LISTED:
            check_listed(field.name, value, LISTED[field.name])
        elif isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise input_error(f"{field.name} is {value}; enter a number of 0 or more")
    if made.t_min > made.t_max:
        raise input_error(f"t_min is {made.t_min}, t_max {made.t_max}; enter a t_min that is not above t_max")
    if made.layers != "one" and made.kind != "ED-LoRA":
        raise input_error(f'layers is "{made.layers}", but only ED-LoRA files hold words that differ by layer')
    if steps:
        # the first phase keeps its share
        first = round(made.words_first * steps / made.steps) if "words_first" not in changes else made.words_first
        made = replace(made, steps=steps, per_picture=False, words_first=first)
    return made

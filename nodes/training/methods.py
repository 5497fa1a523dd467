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
    """All that decides a training beside its pictures.

    words: how many a subject has, 0 for a LoRA without a word of its own; by_batch: lr_words counts per picture of a
    batch; per_picture: steps count per picture; noise, maps: see LossSettings; clip_words: see OptimizerSettings.
    """

    words: int = 1
    start: str = "class word"
    vectors: int = 1
    layers: str = "one"
    steps: int = 500
    per_picture: bool = False
    lr_words: float = 0.0
    by_batch: bool = False
    lr_unet: float = 0.0
    lr_text: float = 0.0
    words_first: int = 0
    lr_words_first: float = 0.0
    schedule: str = "constant"
    batch_size: int = 1
    accumulate: int = 1
    rank: int = 4
    targets: str = "attention"
    lora_start: str = "normal"
    noise: str = "area"
    maps: str = ""
    prior_weight: float = 0.0
    mask_loss: str = "none"
    attention_weight: float = 0.0
    full_identity: bool = False
    pull: float = 0.0
    norm_limit: float = 0.0
    keep_norm: bool = False
    context: float = 0.0
    context_prompts: str = ""
    degrade: float = 0.0
    balance: bool = False
    noise_offset: float = 0.0
    placement: str = "crop"
    placements: int = 16
    flip: bool = True
    t_min: int = 0
    t_max: int = 999
    clip_norm: float = 1.0
    clip_words: bool = True
    checkpoint: str = "auto"
    cache_mb: int = 1024

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
            noise, self.prior_weight, self.maps, self.attention_weight, self.full_identity, self.pull, self.context,
            self.words_first,
        )  # fmt: skip

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
        norm_limit=-1.0, noise_offset=0.01, placement="human", flip=False,
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
        elif isinstance(value, float) and not (math.isfinite(value) and (value >= 0 or field.name == "norm_limit")):
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

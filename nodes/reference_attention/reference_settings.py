"""What every node with references in self-attention can be set to."""

from dataclasses import dataclass

from ..host.choices import check_listed, check_number
from ..host.when import Window
from .mrsa import NOISES, ReferenceMember
from .reference_rows import count_of_pictures

# What references read beside rows of the prompt: their own prompts, or the prompt itself.
TEXTS = ("own", "target")


@dataclass(frozen=True)
class ReferenceSettings:
    """Settings of one node. Raises ValueError for what is no number or no choice."""

    style_fidelity: float = 1.0  # share of plain attention on unconditional rows
    window: Window = Window()
    noise: str = "fresh"  # one of NOISES
    seed: int = 0
    cache_mb: int = 1024  # budget of the bank across runs
    text: str = "own"  # one of TEXTS

    def __post_init__(self):
        check_listed("reference_noise", self.noise, NOISES)
        check_listed("reference_prompt", self.text, TEXTS)
        check_number("style_fidelity", self.style_fidelity)

    def member(self, rows, references, blocks, **more):
        """The ReferenceMember of rows that came of a chain of references, at blocks ({host key: level})."""
        return ReferenceMember(
            rows=tuple(rows),
            pictures=count_of_pictures(references),
            blocks=blocks,
            style_fidelity=max(0.0, min(1.0, self.style_fidelity)),
            window=self.window,
            noise=self.noise,
            seed=self.seed,
            cache_bytes=int(self.cache_mb * 2**20),
            own_text=self.text == "own",
            **more,
        )

"""Reference guidance: away from what the same prompt gives without the references.

Interleaved steps are DreamTuner's (arXiv 2312.13691, section 3.4), the three terms BootPIG's (arXiv 2401.13974).
"""

from dataclasses import dataclass
from statistics import NormalDist

from ..host.attach import attach, technique_of, techniques_of
from ..host.choices import check_listed
from ..host.messages import input_error, warn_user
from ..host.other_lists import OtherLists
from ..host.rows import NEGATIVE, POSITIVE, Listed, Reading
from ..host.seeded import seeded_noise
from ..host.technique import Technique
from ..host.when import whole_timestep
from .mrsa import ReferenceAttention

MODES = INTERLEAVED, THREE_TERMS = ("interleaved", "three terms")


@dataclass(frozen=True)
class GuidanceSettings:
    """What one Reference Guidance node is set to. Raises ValueError for what is out of range."""

    mode: str = INTERLEAVED
    scale: float = 7.5
    share: float = 0.9  # of the steps that are guided by the references, the others are by the prompt
    seed: int = 0  # of the draw
    time_shift: int = 1  # timesteps between the references' noise and the image's

    def __post_init__(self):
        check_listed("mode", self.mode, MODES)


def attach_guidance(model, settings):
    """The MODEL, guided by its references; the MODEL itself where the settings are off."""
    off = settings.scale == 0 or (settings.mode == INTERLEAVED and settings.share == 0)
    return model if off else attach(model, ReferenceGuidance(settings))


class ReferenceGuidance(Technique):
    """What one Reference Guidance node does to a MODEL: with all references that are on it, and with none of them."""

    name = "reference_guidance"
    label = "Reference Guidance"

    def __init__(self, settings):
        self.settings = settings

    def joined_by(self, later):
        warn_user(f"this model has {self.label} twice, and only the last one acts")
        return later

    def extra_rows(self, noise_shape):
        return noise_shape[0] if self.settings.mode == THREE_TERMS else 0

    def begin(self, run):
        """Raises ValueError where the MODEL carries nothing to guide by, or what cannot be guided."""
        readers = _readers(run)
        if not readers:
            raise input_error(
                f"{self.label} found no references on this MODEL; put it behind Multi-Reference Self-Attention or "
                "Reference Only"
            )
        if technique_of(run.guider.model_patcher, "concept_conductor") is not None:
            raise input_error(f"{self.label} does not work beside Concept Conductor; bypass one of the two")
        if self.settings.mode == THREE_TERMS:
            for reader in readers:
                if all(member.style_fidelity == 1 for member in reader.members):
                    raise input_error(f"{THREE_TERMS} needs style_fidelity below 1 in {reader.label}; it is 1")

    def other_lists(self, lists, conds, run, moment):
        if len(lists) == 1:
            # what some node runs beside a step
            return None
        asked = zip(lists, conds, (POSITIVE, NEGATIVE), strict=False)
        if len(lists) > 2 or any(entries is not None and one.name != name for one, entries, name in asked):
            run.tell(f"{self.label}: left out, because this guider uses more than a positive and a negative prompt")
            return None
        sampling = run.guider.inner_model.model_sampling
        if not any(conds) or not _read(run, moment(), sampling):
            return None
        if self.settings.mode == THREE_TERMS:
            return self._three_terms(conds, run)
        return self._interleaved(conds, run, whole_timestep(moment().step_sigma, sampling))

    def _interleaved(self, conds, run, timestep):
        scale, shift = self.settings.scale, self.settings.time_shift
        # another pack may run the sides of a step one by one, and then each without the other
        positive = conds[0] or run.conds().get(POSITIVE)
        earlier = Listed(POSITIVE, Reading(shift=-shift))
        draw = NormalDist().cdf(float(seeded_noise(f"guidance/{self.settings.seed}/{timestep}", (1,))))
        if draw > self.settings.share:
            later = Listed(NEGATIVE, Reading(shift=shift))
            return OtherLists(((earlier, conds[0]), (later, conds[1])), lambda made: made)

        def fold(made):
            guided = made[1] + scale * (made[0] - made[1])
            # alike on both sides: whatever the sampler's cfg is, it changes nothing
            return [guided, guided]

        return OtherLists(((earlier, positive), (_without(POSITIVE), positive)), fold)

    def _three_terms(self, conds, run):
        # a sampler of cfg 1 asks for no negative, a pack that runs the sides one by one for no positive beside it
        negative = conds[1] or run.conds().get(NEGATIVE)
        if negative is None:
            run.tell(f"{self.label}: left out, because {THREE_TERMS} needs a negative prompt and this guider has none")
            return None

        def fold(made):
            both, pictures, neither = made
            unconditional = neither + self.settings.scale * (pictures - neither)
            return [unconditional + (both - pictures), unconditional]

        return OtherLists(
            ((Listed(POSITIVE), conds[0]), (Listed(NEGATIVE), negative), (_without(NEGATIVE), negative)), fold
        )


def _readers(run):
    """The techniques with references on the MODEL of a run."""
    return [one for one in techniques_of(run.guider.model_patcher) if isinstance(one, ReferenceAttention)]


def _read(run, moment, sampling):
    """Whether any references are read at this moment."""
    members = (member for reader in _readers(run) for member in reader.members)
    return any(member.window.holds(moment, sampling) for member in members)


def _without(name):
    """The list of this name, whose rows read no references."""
    return Listed(f"{name} without references", Reading(references=False))

"""Settings of a training beside those of its method. The wire."""

from dataclasses import dataclass, field

from comfy_api.latest import io

from ..host.choices import check_listed
from .methods import LISTED

TrainingOptionsSocket = io.Custom("PERSONALIZATION_TRAINING_OPTIONS")
# A widget with this choice leaves a setting to the method.
AS_METHOD = "method"


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """{name of a setting: value}, of those that the user sets."""

    changes: dict = field(default_factory=dict)


def options_of(values):
    """The TrainingOptions of the widgets' values: what is 0, -1, empty or left to the method is not in them.

    Raises ValueError for a choice that there is none of.
    """
    changes = {}
    for name, value in values.items():
        if name in OPTION_CHOICES:
            check_listed(name, value, (AS_METHOD, *OPTION_CHOICES[name]))
        if value in (AS_METHOD, "", -1) or (value == 0 and name in _ZERO_IS_METHOD):
            continue
        changes[name] = {"on": True, "off": False}.get(value, value) if name in _SWITCHES else value
    return TrainingOptions(changes)


# Of these 0 would be no training; of the others it is a value.
_ZERO_IS_METHOD = ("lr_words", "lr_unet", "lr_text", "lr_words_first", "batch_size", "rank", "vectors")
_SWITCHES = ("balance", "flip")
# {setting: what its dropdown lists beside AS_METHOD}
OPTION_CHOICES = LISTED | dict.fromkeys(_SWITCHES, ("on", "off"))

"""Values of inputs: a wire may bring any, of which the host asks nothing."""

import math

from .messages import input_error


def check_listed(name, value, listed):
    """Raises ValueError unless the value of an input is one of those that its dropdown lists."""
    if value not in listed:
        raise input_error(f'{name} is "{value}"; choose one of {", ".join(listed)}')


def check_number(name, value):
    """Raises ValueError unless the value of an input is a number."""
    if not math.isfinite(value):
        raise input_error(f"{name} is {value}; enter a number")

"""Panels: where the free tile of a grid of pictures lies. The wire."""

from dataclasses import dataclass

from comfy_api.latest import io

PanelSocket = io.Custom("PERSONALIZATION_PANEL")


@dataclass(frozen=True)
class Panel:
    """The free tile (left, top, width, height) of a canvas of a size (W, H), in pixels."""

    size: tuple[int, int]
    tile: tuple[int, int, int, int]

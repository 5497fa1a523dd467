"""An NPNet: the small network of Golden Noise. The wire."""

from comfy_api.latest import io

NPNet = io.Custom("PERSONALIZATION_NPNET")

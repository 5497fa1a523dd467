"""SAM: a network that cuts out what a point, a box or a rough mask shows. The wire."""

from comfy_api.latest import io

SAMSocket = io.Custom("PERSONALIZATION_SAM")

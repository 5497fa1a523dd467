"""Image adapters: small networks that let a model read pictures as it reads a prompt. The wire."""

from comfy_api.latest import io

ImageAdapterSocket = io.Custom("PERSONALIZATION_IMAGE_ADAPTER")

"""Face analysis: networks that find and recognise faces. The wire."""

from comfy_api.latest import io

FaceAnalysisSocket = io.Custom("PERSONALIZATION_FACE_ANALYSIS")

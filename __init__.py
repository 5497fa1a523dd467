"""What ComfyUI imports. Nothing is loaded until ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    from .nodes import PersonalizationPack

    return PersonalizationPack()

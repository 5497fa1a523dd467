"""The front end that each ComfyUI came with, beside the one of the newest, which the shared environment has."""

from setup.hosts import Source, fetch, placed

_PACKAGE, _FOLDER = "comfyui-frontend-package", "comfyui_frontend_package/static"
FRONT_ENDS = {
    "0.30.0": Source(
        _PACKAGE, "1.47.12", "b2155c1afbf30afd06ed217307a1abd92955b329361353a1b68a5297fc00902e", _FOLDER, is_sdist=False
    ),
    "0.16.3": Source(
        _PACKAGE, "1.39.19", "58343dd79eca371badbe354c12b9bc47c7dc58f7f92243be537e178dfbaf2036", _FOLDER, is_sdist=False
    ),
    "0.3.75": Source(
        _PACKAGE, "1.32.9", "737ea322fcef803635d2c8db7dd93122b381a371a8ef66e42762d355e9913c17", _FOLDER, is_sdist=False
    ),
}


def folder_of(cache, version):
    """Where the front end of this ComfyUI version lies, or will."""
    return cache / "front_ends" / FRONT_ENDS[version].version


def install(cache, python):
    """All ComfyUI versions, each with its front end: what the browser tests open."""
    for version, source in FRONT_ENDS.items():
        fetch(cache, python, version)
        placed(cache, python, f"front end {source.version}", source, folder_of(cache, version), "index.html")

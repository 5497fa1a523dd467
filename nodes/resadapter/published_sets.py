"""The eight ResAdapter sets that the authors published (bytedance/res-adapter), and how each is known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One of the authors' sets: its sizes (x = square root of width x height), its ratios width : height, its files."""

    family: str
    sides: tuple
    ratios: tuple
    lora: str
    norms: str


PUBLISHED_SETS = {
    "resadapter_v2_sd1.5": Published(
        "SD1.5",
        (128, 1024),
        (0.28, 3.5),
        "17897742d0a561907a56d4da255ca293976888de35533b67beb5845da8c29cd3",
        "19b200eb2976055566af3e5c52c6f54937887c12e196a2e6e3eb97d0b578fafd",
    ),
    "resadapter_v2_sdxl": Published(
        "SDXL",
        (256, 1536),
        (0.28, 3.5),
        "6376f915394587bd5228945627bc6f38b5a18d8620d766f9e6fc2f0e7209fd20",
        "7b9c13883af814dabaf1df399cc5543e878ab48fe249d03ba9f63c8b2c542528",
    ),
    "resadapter_v1_sd1.5": Published(
        "SD1.5",
        (128, 1024),
        (0.5, 2.0),
        "1ab44862f8e732d3183004ca820d512aaf06a78576c2dd118f528d5902ed9682",
        "fd162671c798970ca803048317bfcd23a7c201e3b90e5bc4eaaba147a26ea443",
    ),
    "resadapter_v1_sd1.5_extrapolation": Published(
        "SD1.5",
        (512, 1024),
        (0.5, 2.0),
        "aa62dc7785404eabf3123136fce5c56ddcd31498982cf1078b2d6547f7b3f898",
        "ff72f8e81f5d36ad7bb8f662543084a6bd8a3f2126dc02686c4a7d8c6e95efab",
    ),
    "resadapter_v1_sd1.5_interpolation": Published(
        "SD1.5",
        (128, 512),
        (0.5, 2.0),
        "40d128f8c1a6290c3a179edf69443ef2ea97f04eef36629e69a4b8f423da895a",
        "f789cbdaafdd56f25f05ec2debcac815156ea9ee83979c54b9a53220e7e3cc91",
    ),
    "resadapter_v1_sdxl": Published(
        "SDXL",
        (256, 1536),
        (0.5, 2.0),
        "3449c1e39d7e8d477edf7f36e3254349c0cbf09fa34cf834c8fadd9792db2ace",
        "bbc6d14d85e21bc6682c4d76bfaeda2e77f479c940228a2223d6597559b9aea0",
    ),
    "resadapter_v1_sdxl_extrapolation": Published(
        "SDXL",
        (1024, 1536),
        (0.5, 2.0),
        "4335864549820f40a1e025447a6aac68d3023fc8fbc28b9103667b23c941b5b0",
        "77fa8bb4dbc04ea93c1b37ffdcf77d4d1007fddcf634a405291d0bb253afce9b",
    ),
    "resadapter_v1_sdxl_interpolation": Published(
        "SDXL",
        (256, 1024),
        (0.5, 2.0),
        "0267837cc36834dac342f4b62db0038ab9d9d6174fb304510dc73dcefc5c8fd2",
        "0c7cf5cb80b6b590a509576c1e4381ce4dc481c62f3815d1578ec48986a0be63",
    ),
}
SET_FAMILIES = {known.family for known in PUBLISHED_SETS.values()}
BY_HASH = {digest: name for name, known in PUBLISHED_SETS.items() for digest in (known.lora, known.norms)}

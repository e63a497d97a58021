"""Models: find a package by name or path, check all that is in it, and say what it is.

Nothing in a package is executed, and nothing reaches an engine before it is checked.
"""

from pssr_live.model.find import find_model, read_package, shipped_models
from pssr_live.model.package import (
    Manifest,
    ModelPackage,
    PackagedFile,
    TestPair,
    Tiling,
    Variant,
)

__all__ = [
    "Manifest",
    "ModelPackage",
    "PackagedFile",
    "TestPair",
    "Tiling",
    "Variant",
    "find_model",
    "read_package",
    "shipped_models",
]

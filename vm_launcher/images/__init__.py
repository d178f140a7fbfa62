"""Images: fetch, verify, hand to a driver."""

from vm_launcher.images.errors import ImageError, ImageErrorCode
from vm_launcher.images.manifest import Layer, Manifest
from vm_launcher.images.signing import read_public_key
from vm_launcher.images.store import fetch_image
from vm_launcher.images.verify import Image, load_image

__all__ = [
    "Image",
    "ImageError",
    "ImageErrorCode",
    "Layer",
    "Manifest",
    "fetch_image",
    "load_image",
    "read_public_key",
]

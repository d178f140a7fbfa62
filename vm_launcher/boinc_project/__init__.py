"""What a BOINC project needs in order to hand out our launcher as one of its applications."""

from vm_launcher.boinc_project.signing import (
    PrivateKey,
    PublicKey,
    SigningError,
    sign_file,
    sign_text,
    verify_file,
    verify_text,
)

__all__ = [
    "PrivateKey",
    "PublicKey",
    "SigningError",
    "sign_file",
    "sign_text",
    "verify_file",
    "verify_text",
]

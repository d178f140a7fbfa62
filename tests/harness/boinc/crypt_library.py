"""BOINC's own signing library, as Debian ships it: the judge of ours.

It has no C interface; the names below are those that its C++ compiler gives.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_CHECK = "_Z21check_file_signature2PKcS0_S0_Rb"  # digest, signature text, key text, verdict
_READ_KEY = "_Z13read_key_filePKcR17R_RSA_PRIVATE_KEY"
_SIGN = "_Z9sign_filePKcR17R_RSA_PRIVATE_KEYR10DATA_BLOCK"
_TEXT = "_Z15sprint_hex_dataPcR10DATA_BLOCK"
_KEY_BYTES = 706  # bits (2), modulus, two exponents (128 each), five numbers of half the length


class _Block(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("length", ctypes.c_uint)]


class CryptLibrary:
    """Package libboinc7 of Debian 12."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libboinc_crypt.so.7")

    def accepts(self, digest: str, signature: str, public_key: str) -> bool:
        verdict = ctypes.c_bool(False)
        texts = (text.encode() for text in (digest, signature, public_key))
        status = self._library[_CHECK](*texts, ctypes.byref(verdict))
        return status == 0 and verdict.value

    def sign(self, path: Path, key_file: Path) -> str:
        key = ctypes.create_string_buffer(_KEY_BYTES)
        self._checked(_READ_KEY, bytes(key_file), key)
        raw = ctypes.create_string_buffer(256)
        block = _Block(ctypes.cast(raw, ctypes.c_char_p), len(raw))
        self._checked(_SIGN, bytes(path), key, ctypes.byref(block))
        text = ctypes.create_string_buffer(1024)
        self._library[_TEXT](text, ctypes.byref(block))
        return text.value.decode()

    def _checked(self, name: str, *arguments: object) -> None:
        status = self._library[name](*arguments)
        if status != 0:
            raise RuntimeError(f"{name} says {status}")

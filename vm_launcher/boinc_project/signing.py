"""BOINC's code signing: key files, `.sig` files and their check, byte for byte as its own tools do.

The scheme is BOINC's: RSA with at most 1024 bits, PKCS #1 v1.5 padding of type 1 around the 32
hexadecimal digits of an MD5, without the name of the digest. No client accepts anything else. What
boots in the VM is therefore signed once more, with Ed25519 (`vm_launcher.images`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from copilot_agent.protocol.errors import CopilotError, ErrorCode

KEY_BITS = 1024
_NUMBER = KEY_BITS // 8  # bytes of a modulus or an exponent in a key file
_PRIME = _NUMBER // 2
_PRIVATE_FIELDS = (_NUMBER, _NUMBER, _NUMBER, _PRIME, _PRIME, _PRIME, _PRIME, _PRIME)
_PUBLIC_FIELDS = (_NUMBER, _NUMBER)
_HALVES = {sum(_PRIVATE_FIELDS): "code_sign_private", sum(_PUBLIC_FIELDS): "code_sign_public"}
_LEAST_BITS = 512  # what BOINC's own tool makes at least
_LINE_BYTES = 32
_MOST_TEXT = 16_384  # characters of a key or signature file; the longest real one has 1465
_CHUNK = 1 << 20


class SigningError(CopilotError):
    """A key that cannot be used."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True)
class PublicKey:
    """`code_sign_public`, which a project tells every client at its first contact."""

    bits: int
    modulus: int
    exponent: int

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Raises SigningError unless it is a key file as `crypt_prog -genkey` writes it."""
        bits, (modulus, exponent) = _parse_key(text, _PUBLIC_FIELDS)
        if modulus.bit_length() > bits or not modulus > exponent > 1:
            raise _no_key("its numbers do not fit together")
        return cls(bits, modulus, exponent)

    def text(self) -> str:
        return _key_text(self.bits, (self.modulus, self.exponent), _PUBLIC_FIELDS)

    def verifies(self, digest: str, signature: str) -> bool:
        """`digest`: the MD5 in lower-case hexadecimal; `signature`: the text of a `.sig` file."""
        try:
            number = int.from_bytes(_parse_hex(signature))
        except SigningError:
            return False
        if number >= self.modulus:
            return False
        return pow(number, self.exponent, self.modulus) == _padded(digest, self.modulus)


@dataclass(frozen=True)
class PrivateKey:
    """`code_sign_private`, which belongs on a machine that is not on the network."""

    public: PublicKey
    numbers: tuple[int, ...] = field(repr=False)  #: d, p, q, d mod p-1, d mod q-1, 1/q mod p

    @classmethod
    def generate(cls) -> PrivateKey:
        made = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_numbers()
        public = PublicKey(KEY_BITS, made.public_numbers.n, made.public_numbers.e)
        return cls(public, (made.d, made.p, made.q, made.dmp1, made.dmq1, made.iqmp))

    @classmethod
    def from_text(cls, text: str) -> PrivateKey:
        """Raises SigningError unless it is a key file as `crypt_prog -genkey` writes it."""
        bits, (modulus, exponent, *numbers) = _parse_key(text, _PRIVATE_FIELDS)
        private, p, q = numbers[:3]
        known = 2  # any number: what one exponent does, the other must undo
        if (
            not modulus
            or p * q != modulus
            or pow(pow(known, private, modulus), exponent, modulus) != known
        ):
            raise _no_key("its numbers do not fit together")
        return cls(PublicKey(bits, modulus, exponent), tuple(numbers))

    def text(self) -> str:
        numbers = (self.public.modulus, self.public.exponent, *self.numbers)
        return _key_text(self.public.bits, numbers, _PRIVATE_FIELDS)

    def sign(self, digest: str) -> str:
        """The text of the `.sig` file for an MD5 in lower-case hexadecimal."""
        # Integers, because a signature without the digest's name is new in the library.
        number = pow(_padded(digest, self.public.modulus), self.numbers[0], self.public.modulus)
        return _hex_text(number.to_bytes(_size(self.public.modulus)))


def sign_file(path: Path, key: PrivateKey) -> str:
    """The text of `<path>.sig`, as `sign_executable` prints it."""
    return key.sign(md5(path))


def verify_file(path: Path, signature: str, key: PublicKey) -> bool:
    return key.verifies(md5(path), signature)


def is_signature(text: str) -> bool:
    """Whether it has the form of a signature, whatever it was made for and by whom."""
    try:
        return _LEAST_BITS // 8 <= len(_parse_hex(text)) <= _NUMBER
    except SigningError:
        return False


def sign_text(text: str, key: PrivateKey) -> str:
    """What BOINC puts into `<xml_signature>` and `<code_sign_key_signature>`."""
    return key.sign(_md5_of_text(text))


def verify_text(text: str, signature: str, key: PublicKey) -> bool:
    return key.verifies(_md5_of_text(text), signature)


def md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _md5_of_text(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _padded(digest: str, modulus: int) -> int:
    payload = digest.encode("ascii")
    filling = b"\xff" * (_size(modulus) - len(payload) - 3)
    return int.from_bytes(b"\x00\x01" + filling + b"\x00" + payload)


def _size(modulus: int) -> int:
    return (modulus.bit_length() + 7) // 8


def _key_text(bits: int, numbers: tuple[int, ...], sizes: tuple[int, ...]) -> str:
    raw = b"".join(number.to_bytes(size) for number, size in zip(numbers, sizes, strict=True))
    return f"{bits}\n{_hex_text(raw)}"


def _parse_key(text: str, sizes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    if text.lstrip().startswith("-----BEGIN"):
        raise _no_key("it is a PEM file, as OpenSSL writes them; BOINC has a form of its own")
    head, _, body = text[:_MOST_TEXT].partition("\n")
    if not (re.fullmatch("[0-9]{1,4}", head) and _LEAST_BITS <= int(head) <= KEY_BITS):
        raise _no_key(f"its first line must be its length in bits, {_LEAST_BITS} to {KEY_BITS}")
    raw = _parse_hex(body)
    if len(raw) != sum(sizes):
        if other := _HALVES.get(len(raw)):
            raise _no_key(f"it is the other half, {other}")
        raise _no_key(f"it has {len(raw)} bytes where {sum(sizes)} are needed")
    return int(head), tuple(int.from_bytes(part) for part in _split(raw, sizes))


def _split(raw: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    return (raw[start:end] for start, end in pairwise(ends))


def _hex_text(raw: bytes) -> str:
    starts = range(0, len(raw), _LINE_BYTES)
    lines = (raw[start : start + _LINE_BYTES].hex() for start in starts)
    return "\n".join((*lines, ".\n"))


def _parse_hex(text: str) -> bytes:
    digits, dot, _ = text[:_MOST_TEXT].partition(".")
    if not dot:
        raise _no_key("the '.' at its end is missing")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise _no_key("it holds something other than hexadecimal digits") from None


def _no_key(why: str) -> SigningError:
    return SigningError(
        f"this is no BOINC key: {why}",
        remedy="give a file that `crypt_prog` or `vm-launcher boinc-sign --new-key` wrote",
    )

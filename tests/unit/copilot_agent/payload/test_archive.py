import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.payload.archive import ArchiveError, Caps, safe_name, unpack
from copilot_agent.payload.threads import InterruptedWorkError
from copilot_agent.payload.tree import remove_tree

CAPS = Caps(bytes=20 << 20, entries=1000)


def entry(name: str, content: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=kind, linkname=target)


def zipped(
    *files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def wrong_size_zip() -> bytes:
    """Says that its file has 10 bytes, and unpacks to a thousand."""
    raw = zipped(("a", b"x" * 1000))
    return raw.replace(struct.pack("<I", 1000), struct.pack("<I", 10))


def zip64() -> bytes:
    """A small zip, with a zip64 record before its end that readers believe more than that."""
    raw = zipped(("a", b"x"))
    end = raw.rfind(b"PK\x05\x06")
    length, start = struct.unpack_from("<II", raw, end + 12)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, length, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    return raw[:end] + record + locator + raw[end:]


def huge_header() -> bytes:
    info = tarfile.TarInfo("a")
    info.size = 1 << 50
    return info.tobuf(tarfile.GNU_FORMAT)


def encrypted_zip() -> bytes:
    raw = bytearray(zipped(("a", b"secret")))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    return bytes(raw)


def unpacked(raw: bytes, tmp_path: Path, caps: Caps = CAPS) -> Path:
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(raw)
    target.mkdir()
    unpack(archive, target, caps)
    return target


GOOD = [entry("data/a.txt", b"alpha"), entry("data/run", b"#!", mode=0o755), entry("./b", b"beta")]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda raw: raw,
    "tar.gz": gzip.compress,
    "tar.xz": lzma.compress,
    "tar.bz2": bz2.compress,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_tars(kind: str, tmp_path: Path) -> None:
    target = unpacked(PACKERS[kind](tar(*GOOD)), tmp_path)
    assert (target / "data/a.txt").read_bytes() == b"alpha"
    assert (target / "b").read_bytes() == b"beta"
    assert stat.S_IMODE((target / "data/run").stat().st_mode) == 0o555
    assert stat.S_IMODE((target / "data/a.txt").stat().st_mode) == 0o444
    assert stat.S_IMODE((target / "data").stat().st_mode) == 0o555


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_large_sizes(form: int, tmp_path: Path) -> None:
    name = "/".join(["d" * 60] * 5) + "/" + "é" * 50
    content = os.urandom(700_001)
    target = unpacked(tar(entry(name, content), entry("after", b"x"), form=form), tmp_path)
    assert (target / name).read_bytes() == content
    assert (target / "after").read_bytes() == b"x"


def test_zip(tmp_path: Path) -> None:
    raw = zipped(
        ("pkg/mod.py", b"x = 1\n"), ("empty/", b""), (zip_entry("run", stat.S_IFREG | 0o755), b"!")
    )
    target = unpacked(raw, tmp_path)
    assert (target / "pkg/mod.py").read_bytes() == b"x = 1\n"
    assert (target / "empty").is_dir()
    assert stat.S_IMODE((target / "run").stat().st_mode) == 0o555


HOSTILE: dict[str, tuple[bytes, str]] = {
    "tar: upwards": (tar(entry("../evil", b"x")), "leads out"),
    "tar: upwards in the middle": (tar(entry("a/../../evil", b"x")), "leads out"),
    "tar: absolute": (tar(entry("/tmp/evil", b"x")), "absolute"),
    "tar: symbolic link": (tar(link("a", "/etc")), "a symbolic link"),
    "tar: write through a link": (tar(link("a", ".."), entry("a/evil", b"x")), "a symbolic link"),
    "tar: hard link": (tar(link("a", "/etc/passwd", tarfile.LNKTYPE)), "a hard link"),
    "tar: device": (tar(entry("a", type=tarfile.CHRTYPE)), "a device"),
    "tar: block device": (tar(entry("a", type=tarfile.BLKTYPE)), "a device"),
    "tar: pipe": (tar(entry("a", type=tarfile.FIFOTYPE)), "a pipe"),
    "tar: sparse": (tar(entry("a", type=tarfile.GNUTYPE_SPARSE)), "a sparse file"),
    "tar: twice": (tar(entry("a", b"1"), entry("a", b"2")), "twice"),
    "tar: file as directory": (tar(entry("a", b"1"), entry("a/b", b"2")), "both a file"),
    "tar: directory as file": (tar(entry("a/b", b"1"), entry("a", b"2")), "twice"),
    "tar: control characters": (tar(entry("a\x1b[31m", b"1")), "forbidden characters"),
    "tar: newline": (tar(entry("a\nb", b"1")), "forbidden characters"),
    "tar: very long name": (tar(entry("n" * 2000, b"1")), "too long"),
    "tar: very deep": (tar(entry("/".join("d" * 40), b"1")), "too deep"),
    "tar: no name": (tar(entry(".", b"1")), "no name"),
    "tar: cut": (tar(entry("a", b"x" * 5000))[:2000], "ends too early"),
    "tar: too large": (tar(entry("a", b"\0" * (21 << 20))), "more than 20971520 bytes"),
    "tar: says to be huge": (huge_header(), "unpacks to more than"),
    "tar: huge extended header": (
        tar(entry("a", b"1", pax_headers={"comment": "x" * 100_000})),
        "header that is too large",
    ),
    "tar: sparse by extended header": (
        tar(entry("a", b"1", pax_headers={"GNU.sparse.major": "1"})),
        "sparse",
    ),
    "tar.gz: bomb": (
        gzip.compress(tar(entry("a", b"\0" * (15 << 20)))),
        "200 times the packed size",
    ),
    "tar.xz: bomb": (lzma.compress(tar(entry("a", b"\0" * (15 << 20)))), "packed size"),
    "tar.gz: damaged": (gzip.compress(tar(entry("a", os.urandom(9999))))[:-500], "damaged"),
    "tar: too many": (tar(*[entry(f"f{i}") for i in range(1001)]), "more than 1000 entries"),
    "tar: too many headers": (
        tar(*[entry("a", type=tarfile.XGLTYPE)] * 5000, entry("a", b"x")),
        "headers",
    ),
    "tar: directories with content": (
        gzip.compress(tar(*[entry(f"d{i}", b"\0" * (9 << 20), type=b"5") for i in range(3)])),
        "unpacks to more than",
    ),
    "tar: too many directories": (
        tar(*[entry("/".join(f"{i}-{j}" for j in range(30)) + "/f") for i in range(60)]),
        "more than 1000 entries",
    ),
    "zip: upwards": (zipped(("../evil", b"x")), "leads out"),
    "zip: absolute": (zipped(("/tmp/evil", b"x")), "absolute"),
    "zip: backslash": (zipped(("..\\evil", b"x")), "forbidden characters"),
    "zip: symbolic link": (
        zipped((zip_entry("a", stat.S_IFLNK | 0o777), b"/etc")),
        "neither a regular file",
    ),
    "zip: pipe": (zipped((zip_entry("a", stat.S_IFIFO | 0o777), b"")), "neither a regular file"),
    "zip: bomb": (zipped(("a", b"\0" * (15 << 20))), "200 times the packed size"),
    "zip: other compression": (zipped(("a", b"x"), method=zipfile.ZIP_LZMA), "than deflate"),
    "zip: too many": (zipped(*[(f"f{i}", b"") for i in range(1001)]), "more than 1000 entries"),
    "zip: more in a zip64 record": (zip64(), "4 GiB"),
    "zip: wrong size": (wrong_size_zip(), "a"),
    "zip: encrypted": (encrypted_zip(), "is encrypted"),
    "zip: cut": (zipped(("a", b"x" * 100))[:-10], "without an end record"),
    "nothing known": (b"just text" * 200, "neither zip nor tar"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"x" * 600, "use tar.gz or tar.xz"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(case: str, tmp_path: Path) -> None:
    raw, words = HOSTILE[case]
    with pytest.raises(ArchiveError, match=words.replace("(", r"\(")):
        unpacked(raw, tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["archive", "target"]
    assert not Path("/tmp/evil").exists()
    assert not any(each.is_symlink() for each in (tmp_path / "target").rglob("*"))


NAMES = st.text(st.sampled_from("ab./\\\0\n é\u202e\ud800"), min_size=1, max_size=30)


@given(NAMES)
def test_safe_names_stay_inside(name: str) -> None:
    try:
        safe = safe_name(name)
    except ArchiveError:
        return
    assert not safe.startswith("/")
    assert not {"..", ".", ""} & set(safe.split("/")) or safe == ""
    assert safe.isprintable()


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("ab./é"), min_size=1, max_size=12),
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
            st.binary(max_size=10),
        ),
        max_size=5,
    )
)
def test_nothing_is_ever_written_outside(entries: list[tuple[str, bytes, bytes]]) -> None:
    made = [
        entry(name, content if kind == tarfile.REGTYPE else b"", type=kind, linkname="../..")
        for name, kind, content in entries
    ]
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "archive").write_bytes(tar(*made))
        (top / "a/b/target").mkdir(parents=True)
        with contextlib.suppress(ArchiveError):
            unpack(top / "archive", top / "a/b/target", CAPS)
        assert sorted(each.name for each in top.iterdir()) == ["a", "archive"]
        assert [each.name for each in (top / "a").iterdir()] == ["b"]
        assert [each.name for each in (top / "a/b").iterdir()] == ["target"]
        remove_tree(top / "a")


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_or_unpacked(raw: bytes) -> None:
    for start in (b"", b"PK", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ArchiveError):
            unpacked(start + raw, Path(folder))


@given(st.integers(0, 1023), st.integers(0, 255))
def test_a_flipped_byte_does_no_harm(position: int, value: int) -> None:
    raw = bytearray(tar(entry("a", b"1"), entry("b/c", b"2")))
    raw[position] = value
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(ArchiveError):
            unpacked(bytes(raw), Path(folder))
        for each in (Path(folder) / "target").rglob("*"):
            assert stat.S_IFMT(each.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        remove_tree(Path(folder) / "target")


def test_it_can_be_stopped(tmp_path: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise InterruptedWorkError

    (tmp_path / "archive").write_bytes(tar(entry("a", b"\0" * (5 << 20))))
    (tmp_path / "target").mkdir()
    with pytest.raises(InterruptedWorkError):
        unpack(tmp_path / "archive", tmp_path / "target", CAPS, check=check)


def test_of_what_is_wanted_the_rest_is_read_over(tmp_path: Path) -> None:
    """Directories of strangers hold anything; what is wanted and is a link is not there."""
    source, target = tmp_path / "packed", tmp_path / "unpacked"
    target.mkdir()
    long = "d/" * 100 + "x"
    source.write_bytes(
        gzip.compress(
            tar(
                entry("./", type=tarfile.DIRTYPE),
                entry("./out.txt", b"wanted"),
                link("./stolen.txt", "/etc/passwd"),
                link("./" + long, long, tarfile.LNKTYPE),
                entry("./fifo", type=tarfile.FIFOTYPE),
                entry("../../up", b"x" * 1000),
                entry("./in/deep.txt", b"also"),
                form=tarfile.GNU_FORMAT,
            )
        )
    )
    wanted = frozenset({"out.txt", "stolen.txt", "in/deep.txt", "never"})
    unpack(source, target, CAPS, wanted=wanted)
    found = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert found == {"out.txt": "wanted", "in/deep.txt": "also"}


def test_what_is_not_wanted_counts_all_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "packed", tmp_path / "unpacked"
    target.mkdir()
    source.write_bytes(gzip.compress(tar(entry("bomb", bytes(30 << 20)))))
    with pytest.raises(ArchiveError, match="more than"):
        unpack(source, target, CAPS, wanted=frozenset({"out.txt"}))

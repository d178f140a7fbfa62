"""Images come from a directory or a web server, signed, capped and resumable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.vm_launcher.images.conftest import NOW, SmallImage
from vm_launcher.images import ImageError, fetch_image, load_image


class Server(ThreadingHTTPServer):
    """Serves a directory with ranges; `break_after` cuts every answer, `asked` records."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory = directory
        self.break_after: int | None = None
        self.obey_ranges = True
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, wanted = self.path.strip("/"), self.headers.get("Range", "")
        self.server.asked.append((name, wanted))
        path = self.server.directory / name
        if not path.is_file():
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.server.obey_ranges else 0
        data = path.read_bytes()[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = self.server.break_after if not name.startswith("manifest") else None
        self.wfile.write(data[:cut])

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(image: SmallImage) -> Iterator[Server]:
    found = Server(image.directory)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def check(image: SmallImage, directory: Path, tmp_path: Path) -> None:
    load_image(directory, trusted_keys=[image.key.public_key()], now=NOW, state=tmp_path / "state")


def test_from_a_directory(image: SmallImage, tmp_path: Path) -> None:
    found = fetch_image(str(image.directory), tmp_path / "in", [image.key.public_key()])
    assert found == tmp_path / "in" / "5"
    check(image, found, tmp_path)


def test_from_a_url_with_progress(image: SmallImage, server: Server, tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    found = fetch_image(
        server.url, tmp_path / "in", [image.key.public_key()],
        lambda file, done, size: seen.update({file: (done, size)}),
    )  # fmt: skip
    check(image, found, tmp_path)
    assert set(seen) == {"kernel.xz", "initrd", "base.xz", "agent"}
    assert all(done == size for done, size in seen.values())


def test_a_second_fetch_downloads_no_layer(
    image: SmallImage, server: Server, tmp_path: Path
) -> None:
    keys = [image.key.public_key()]
    fetch_image(server.url, tmp_path / "in", keys)
    server.asked.clear()
    fetch_image(server.url, tmp_path / "in", keys)
    assert [name for name, _ in server.asked] == ["manifest.json", "manifest.json.sig"]


@pytest.mark.parametrize("obey", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(
    image: SmallImage, server: Server, tmp_path: Path, obey: bool
) -> None:
    keys = [image.key.public_key()]
    part = tmp_path / "in" / "5" / ".initrd.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(image.plain("initrd")[:700])
    server.obey_ranges = obey
    check(image, fetch_image(server.url, tmp_path / "in", keys), tmp_path)
    assert ("initrd", "bytes=700-") in server.asked


def test_a_cut_off_download_can_be_taken_up(
    image: SmallImage, server: Server, tmp_path: Path
) -> None:
    server.break_after = 50
    keys = [image.key.public_key()]
    with pytest.raises(ImageError) as caught:
        fetch_image(server.url, tmp_path / "in", keys)
    assert caught.value.code == "image_missing"
    assert not (tmp_path / "in" / "5" / "manifest.json").exists()
    server.break_after = None
    check(image, fetch_image(server.url, tmp_path / "in", keys), tmp_path)
    assert ("kernel.xz", "bytes=50-") in server.asked


def test_an_endless_layer_is_capped(image: SmallImage, server: Server, tmp_path: Path) -> None:
    (image.directory / "agent").write_bytes(bytes(5_000_000))
    with pytest.raises(ImageError) as caught:
        fetch_image(server.url, tmp_path / "in", [image.key.public_key()])
    assert caught.value.code == "image_tampered"
    assert sum(path.stat().st_size for path in (tmp_path / "in").rglob("*agent*")) < 100_000


def test_nothing_is_fetched_before_the_signature_is_checked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        fetch_image(server.url, tmp_path / "in", [Ed25519PrivateKey.generate().public_key()])
    assert caught.value.code == "image_signature"
    assert {name for name, _ in server.asked} == {"manifest.json", "manifest.json.sig"}
    assert not (tmp_path / "in").exists()


def test_a_missing_layer_or_server_is_said(
    image: SmallImage, server: Server, tmp_path: Path
) -> None:
    keys = [image.key.public_key()]
    (image.directory / "base.xz").unlink()
    for source in (server.url, str(image.directory), "http://127.0.0.1:1/"):
        with pytest.raises(ImageError) as caught:
            fetch_image(source, tmp_path / "in", keys)
        assert caught.value.code == "image_missing"

"""Downloads from a small server of our own: whole, broken off and resumed, tampered with, not there."""

import hashlib
import os
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vit_common import data as data_module
from vit_common import download as download_module
from vit_common.data import load_dataset
from vit_common.download import REMOTES, Remote, cache_dir, download
from vit_common.errors import DataError

pytest.importorskip("pooch", reason="downloads need pooch")
PAYLOAD = os.urandom(300_000)
MD5 = hashlib.md5(PAYLOAD, usedforsecurity=False).hexdigest()


@contextmanager
def serving(payload=PAYLOAD, ranges=True, break_at=(), status=200, encoding=None, delay=0.0):
    """A server on a free port; `break_at`: each number ends one reply early, at that byte of the file.

    `delay`: seconds before each reply.
    """
    breaks, seen = list(break_at), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            seen.append(self.headers.get("Range"))
            time.sleep(delay)
            start = int(asked[1]) if asked and ranges else 0
            if status != 200:
                return self.send_error(status)
            if start >= len(payload):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(payload)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if asked and ranges else 200)
            if asked and ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(payload) - 1}/{len(payload)}")
            if encoding:
                self.send_header("Content-Encoding", encoding)
            self.send_header("Content-Length", str(len(payload) - start))
            self.end_headers()
            stop = breaks.pop(0) if breaks else len(payload)
            self.wfile.write(payload[start:stop])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.bin", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def remote(*urls: str, checksum: str = f"md5:{MD5}") -> Remote:
    return Remote("file.bin", urls, checksum)


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_whole_then_from_the_cache(tmp_path):
    with serving() as (url, seen):
        path = download(remote(url), tmp_path / "new" / "folder", progress=False)
        assert path == tmp_path / "new" / "folder" / "file.bin"
        assert path.read_bytes() == PAYLOAD
        assert seen == [None]
        assert leftovers(path.parent) == ["file.bin"]
        download(remote(url), path.parent, progress=False)
        assert len(seen) == 1, "a file that is there with the right checksum is not fetched again"


def test_a_broken_transfer_goes_on_by_itself(tmp_path):
    with serving(break_at=[100_000, 250_000]) as (url, seen):
        assert download(remote(url), tmp_path, progress=False).read_bytes() == PAYLOAD
    assert seen == [None, "bytes=100000-", "bytes=250000-"]
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_later_call_resumes_what_an_earlier_one_left(tmp_path):
    with serving(break_at=[100_000] * 3) as (url, seen):
        with pytest.raises(DataError, match="broken off after 100000 of 300000"):
            download(remote(url), tmp_path, progress=False)
        assert leftovers(tmp_path) == ["file.bin.part"], "nothing under the real name before it is whole"
        seen.clear()
        download(remote(url), tmp_path, progress=False)
        assert seen == ["bytes=100000-"]
    assert (tmp_path / "file.bin").read_bytes() == PAYLOAD
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_whole_part_needs_no_byte_more(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD)
    with serving() as (url, seen):
        assert download(remote(url), tmp_path, progress=False).read_bytes() == PAYLOAD
    assert seen == ["bytes=300000-"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD + b"more")
    with serving() as (url, _):
        assert download(remote(url), tmp_path, progress=False).read_bytes() == PAYLOAD


def test_server_without_ranges_starts_again(tmp_path):
    with serving(ranges=False, break_at=[100_000]) as (url, seen):
        assert download(remote(url), tmp_path, progress=False).read_bytes() == PAYLOAD
    assert seen == [None, "bytes=100000-"]


def test_wrong_checksum_is_refused_and_removed(tmp_path):
    with serving(payload=b"tampered" + PAYLOAD) as (url, _), pytest.raises(DataError) as caught:
        download(remote(url), tmp_path, progress=False)
    assert MD5 in str(caught.value)
    assert url in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_stale_part_cannot_end_in_a_wrong_file(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"\0" * 1000)
    with serving() as (url, seen):
        assert download(remote(url, url), tmp_path, progress=False).read_bytes() == PAYLOAD
    assert seen == ["bytes=1000-", None]


def test_the_next_mirror_is_asked(tmp_path):
    with serving(status=404) as (gone, _), serving(payload=b"wrong") as (wrong, _), serving() as (good, seen):
        assert download(remote(gone, wrong, good), tmp_path, progress=False).read_bytes() == PAYLOAD
        assert len(seen) == 1


def test_content_encoding_is_not_undone(tmp_path):
    with serving(encoding="gzip") as (
        url,
        _,
    ):  # old servers label .gz files so; the checksum is that of the .gz
        assert download(remote(url), tmp_path, progress=False).read_bytes() == PAYLOAD


def test_network_failure_names_addresses_and_the_way_by_hand(tmp_path):
    with serving() as (url, _):
        pass  # stopped: nobody listens there any more
    with pytest.raises(DataError, match="could not be fetched") as caught:
        download(remote(url), tmp_path, progress=False)
    message = str(caught.value)
    assert url in message
    assert str(tmp_path / "file.bin") in message
    assert MD5 in message


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="choose another data folder"):
        download(remote("http://127.0.0.1:9/x"), tmp_path / "file" / "below", progress=False)


def test_several_at_once_fetch_once(tmp_path):
    pytest.importorskip("filelock", reason="the lock between processes is filelock's")
    with serving(delay=0.2) as (url, seen):
        threads = [threading.Thread(target=download, args=(remote(url), tmp_path, False)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 1
    assert (tmp_path / "file.bin").read_bytes() == PAYLOAD


def test_load_dataset_fetches_what_is_missing(tmp_path, monkeypatch):
    with serving() as (url, seen):
        monkeypatch.setitem(REMOTES, "cifar10", (Remote("cifar-10-binary.tar.gz", (url,), f"md5:{MD5}"),))
        monkeypatch.setattr(data_module.cifar, "read_cifar10", lambda path: pytest.fail(f"read {path.name}"))
        with pytest.raises(pytest.fail.Exception, match=r"read cifar-10-binary\.tar\.gz"):
            load_dataset("cifar10", tmp_path, progress=False)
        with pytest.raises(pytest.fail.Exception):
            load_dataset("cifar10", tmp_path, progress=False)
        assert len(seen) == 1
        assert (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").exists()


def test_cache_dir_order(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "env"))
    assert cache_dir(tmp_path / "given") == tmp_path / "given"
    assert cache_dir() == tmp_path / "env"
    monkeypatch.delenv("VIT_CACHE")
    assert "vit-written-twice" in str(cache_dir())
    assert cache_dir().is_absolute()


def test_remotes_are_complete():
    for name, files in REMOTES.items():
        assert len({file.name for file in files}) == len(files) == (1 if name == "cifar10" else 4)
        for file in files:
            assert re.fullmatch("md5:[0-9a-f]{32}", file.checksum)
            assert len(file.urls) >= 2
            assert all(url.endswith("/" + file.name) for url in file.urls)
    assert download_module.REMOTES is REMOTES

r"""Fetching the public datasets: mirrors, checksums, resumption, and one cache folder.

`pooch` does the checking and the atomic move into place. What it lacks is a downloader that goes on where a
broken transfer stopped: `ResumingDownloader` keeps what came in NAME.part and asks the server for the rest
(RFC 9110, section 14).
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from vit_common import cifar
from vit_common.errors import DataError, require

_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_CIFAR = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
)


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its name, the addresses that offer it, best first, and "md5:..." or "sha256:..."."""

    name: str
    urls: tuple[str, ...]
    checksum: str


def _remote(name: str, hosts: tuple[str, ...], md5: str) -> Remote:
    return Remote(name, tuple(host + name for host in hosts), f"md5:{md5}")


REMOTES = {
    "mnist": (
        _remote("train-images-idx3-ubyte.gz", _MNIST, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        _remote("train-labels-idx1-ubyte.gz", _MNIST, "d53e105ee54ea40749a09fcbcd1e9432"),
        _remote("t10k-images-idx3-ubyte.gz", _MNIST, "9fb629c4189551a2d022fa330f9573f3"),
        _remote("t10k-labels-idx1-ubyte.gz", _MNIST, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "fashion-mnist": (
        _remote("train-images-idx3-ubyte.gz", _FASHION, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _remote("train-labels-idx1-ubyte.gz", _FASHION, "25c81989df183df01b3e8a0aad5dffbe"),
        _remote("t10k-images-idx3-ubyte.gz", _FASHION, "bef4ecab320f06d8554ea6380940ec79"),
        _remote("t10k-labels-idx1-ubyte.gz", _FASHION, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (_remote(cifar.ARCHIVE, _CIFAR, cifar.MD5),),
}


def cache_dir(data_dir: str | os.PathLike | None = None) -> Path:
    """Where data is kept: `data_dir`, else the variable VIT_CACHE, else the user's cache folder."""
    if chosen := data_dir or os.environ.get("VIT_CACHE"):
        return Path(chosen).expanduser()
    return Path(require("platformdirs", extra="cli").user_cache_dir("vit-written-twice"))


def download(remote: Remote, folder: str | os.PathLike, progress: bool = True) -> Path:
    """Fetch `remote` into `folder` and return its path; nothing is fetched if it is there with the right
    checksum.

    The mirrors are tried in turn. The file appears under its name only when whole and checked; several
    processes may ask at once. Raises DataError if no mirror delivers, naming each address and its failure,
    and how to place the file by hand.
    """
    folder = Path(folder)
    pooch = require("pooch", extra="cli")
    requests = require("requests", extra="cli")
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{remote.name}.part"
        with _lock(folder / f".{remote.name}.lock"):
            for url in remote.urls:
                get = ResumingDownloader(part, progress)
                try:
                    return Path(pooch.retrieve(url, remote.checksum, remote.name, folder, downloader=get))
                except (
                    requests.RequestException,
                    ValueError,
                ) as error:  # ValueError: pooch found a wrong checksum
                    failures.append(f"  {url}: {error}")
    except OSError as error:
        raise DataError(
            f"cannot write {remote.name} into {folder}: {error}; choose another data folder"
        ) from error
    raise DataError(
        f"{remote.name} could not be fetched:\n"
        + "\n".join(failures)
        + f"\nTry again (a broken transfer goes on where "
        f"it stopped), or fetch it with a browser and put it at {folder / remote.name} ({remote.checksum})."
    )


def _lock(path: Path) -> AbstractContextManager:
    """One process at a time. Processes that load side by side run on torch, which brings filelock with it."""
    try:
        from filelock import FileLock
    except ImportError:
        return nullcontext()
    return FileLock(path)


class ResumingDownloader:
    """A pooch downloader that resumes: it appends to `part`, and renames it to `output_file` when whole."""

    def __init__(self, part: Path, progress: bool = True, attempts: int = 3, timeout: float = 30.0):
        self.part, self.progress, self.attempts, self.timeout = part, progress, attempts, timeout

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> bool | None:
        requests = require("requests", extra="cli")
        if check_only:
            return requests.head(url, timeout=self.timeout, allow_redirects=True).ok
        for attempt in range(1, self.attempts + 1):
            try:
                self._transfer(url)
                break
            except (requests.ConnectionError, requests.Timeout):
                if (
                    attempt == self.attempts or not self.part.exists()
                ):  # nothing came: the mirror is not there
                    raise
        os.replace(self.part, output_file)  # a part with a wrong checksum goes with pooch's temporary file
        return None

    def _transfer(self, url: str) -> None:
        """One request: what is missing from `part`, appended to it."""
        requests, tqdm = require("requests", extra="cli"), require("tqdm", extra="cli")
        done = self.part.stat().st_size if self.part.exists() else 0
        # identity: these files are .gz themselves; a range of a re-encoded body is one of something else
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as reply:
            start, total = _span(reply.headers.get("Content-Range", ""))
            if reply.status_code == 416 and done:  # there is nothing after `done`
                if total == done:
                    return
                self.part.unlink()  # longer than the file: another file's part
                return self._transfer(url)
            reply.raise_for_status()
            if reply.status_code != 206:  # the server does not do ranges and sends all of it: start again
                done, total = 0, int(reply.headers.get("Content-Length", 0)) or None
            elif start != done:
                raise requests.RequestException(
                    f"asked for the bytes from {done}, the server sent those from {start}"
                )
            bar = tqdm.tqdm(
                total=total, initial=done, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1],
                disable=None if self.progress else True,  # None: only on a terminal
            )  # fmt: skip
            with open(self.part, "ab" if done else "wb") as file, bar:
                try:
                    for chunk in reply.raw.stream(1 << 16, decode_content=False):
                        done += file.write(chunk)
                        bar.update(len(chunk))
                except require("urllib3", extra="cli").exceptions.HTTPError as error:
                    raise requests.ConnectionError(
                        f"broken off after {done} of {total or '?'} bytes"
                    ) from error
            if total is not None and done != total:
                raise requests.ConnectionError(f"broken off after {done} of {total} bytes")


def _span(content_range: str) -> tuple[int | None, int | None]:
    """(start, total) of a Content-Range header: "bytes 5-9/10" -> (5, 10), "bytes */10" -> (None, 10)."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", content_range.strip())
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total and total != "*" else None

"""Public data sets fetched once by pooch, checked against their checksums, and read without pickles."""

import gzip
import math
import os
import struct
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.basics.errors import UsageError
from bench.data.raw import RawData, check_memory, reason

CIFAR_PIXELS = 3 * 32 * 32
CIFAR_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_TEST = ("test_batch.bin",)
MAX_CIFAR_MEMBER = 10_000 * (1 + CIFAR_PIXELS)
BLOCK = 1 << 16
TIMEOUT = 30


@dataclass(frozen=True)
class RemoteFile:
    """A public file: its name, exact size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Remote:
    """Where a data set is published, and its class names in label order."""

    url: str
    files: tuple[RemoteFile, ...]
    classes: tuple[str, ...]


REMOTES = {
    "mnist": Remote(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        (
            RemoteFile(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        tuple("0123456789"),
    ),
    "fashion_mnist": Remote(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        (
            RemoteFile(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "cifar10": Remote(
        "https://www.cs.toronto.edu/~kriz",
        (
            RemoteFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}


def download(name: str, cache_dir: Path, mirror: str | None) -> RawData:
    """Return a public data set from the cache, fetching what is missing there; raise UsageError.

    ``mirror`` replaces the published address; it serves the files under NAME/.
    """
    remote = REMOTES[name]
    url = f"{mirror.rstrip('/')}/{name}" if mirror else remote.url
    paths = [_fetch(file, url, cache_dir / name, name) for file in remote.files]
    try:
        arrays = _read_cifar(paths[0]) if len(paths) == 1 else _read_idx_files(paths)
    except UsageError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise UsageError(
            f"cannot read the download {name} in {cache_dir / name} ({reason(error)}): delete that folder and try again"
        ) from error
    x_train, y_train, x_test, y_test = arrays
    return RawData(x_train, y_train, x_test, y_test, classes=remote.classes, origin=url)


def _fetch(file: RemoteFile, url: str, folder: Path, name: str) -> Path:
    """Return the path of a file whose checksum is right; nothing else is ever left in the cache."""
    import pooch
    import requests

    def capped(source: str, target: str, _: object) -> None:
        """Download at most the known size, so that no server can fill the disk."""
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=BLOCK, timeout=TIMEOUT)
        with Path(target).open("wb") as stream:
            downloader(source, _CappedWriter(stream, file.size), None)

    address = f"{url}/{file.name}"
    other_ways = (
        f"try again, set BENCH_MIRROR to another server, or put {name}.npz into a folder (--data-dir)"
    )
    try:
        return Path(
            pooch.retrieve(address, f"sha256:{file.sha256}", fname=file.name, path=folder, downloader=capped)
        )
    except requests.RequestException as error:
        raise UsageError(f"cannot download {address} ({reason(error)}): {other_ways}") from error
    except OSError as error:
        raise UsageError(
            f"cannot write {file.name} to the cache {folder} ({error.strerror or error}): free some space or set "
            "BENCH_CACHE_DIR to a folder that can be written"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{address} does not have the checksum sha256:{file.sha256} (cut off or changed on the way), "
            f"so it was deleted: {other_ways}"
        ) from error


class _CappedWriter:
    """A file open for writing that refuses more than ``limit`` bytes."""

    def __init__(self, stream, limit: int) -> None:
        self.stream, self.left = stream, limit

    def write(self, block: bytes) -> None:
        self.left -= len(block)
        if self.left < 0:
            raise ValueError("the file is longer than published")
        self.stream.write(block)

    def flush(self) -> None:
        self.stream.flush()


def _read_idx_files(paths: list[Path]) -> tuple[np.ndarray, ...]:
    images_train, labels_train, images_test, labels_test = (read_idx(path) for path in paths)
    return images_train, labels_train.astype(np.int64), images_test, labels_test.astype(np.int64)


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist)."""
    with gzip.open(path) as stream:
        zero, kind, axes = struct.unpack(">HBB", _exactly(stream, 4))
        if zero != 0 or kind != 8 or not 1 <= axes <= 3:
            raise ValueError(f"{path.name} is not an IDX file of unsigned bytes")
        shape = struct.unpack(f">{axes}I", _exactly(stream, 4 * axes))
        check_memory(math.prod(shape), math.prod(shape), str(path))
        values = np.frombuffer(_exactly(stream, math.prod(shape)), dtype=np.uint8)
        if stream.read(1):
            raise ValueError(f"{path.name} goes on after its declared {shape} values")
    return values.reshape(shape)


def _exactly(stream, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"{count} bytes expected, {len(data)} found")
    return data


def _read_cifar(path: Path) -> tuple[np.ndarray, ...]:
    """Read CIFAR's binary version from the archive in memory; nothing is unpacked to disk."""
    batches = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and name in CIFAR_TRAIN + CIFAR_TEST:
                if member.size > MAX_CIFAR_MEMBER or member.size % (1 + CIFAR_PIXELS):
                    raise ValueError(f"{name} has {member.size} bytes")
                data = _exactly(archive.extractfile(member), member.size)
                batches[name] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 1 + CIFAR_PIXELS)
    missing = [name for name in CIFAR_TRAIN + CIFAR_TEST if name not in batches]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return (
        *_cifar_arrays(np.concatenate([batches[name] for name in CIFAR_TRAIN])),
        *_cifar_arrays(batches[CIFAR_TEST[0]]),
    )


def _cifar_arrays(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 32, 32, 3) and labels (N,) of records: one label byte, then the three colour planes."""
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, 0].astype(np.int64)


def default_cache_dir() -> Path:
    """Return BENCH_CACHE_DIR or the platform's cache folder."""
    import pooch

    return Path(os.environ.get("BENCH_CACHE_DIR") or pooch.os_cache("certbench"))

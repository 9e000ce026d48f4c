"""Downloads, against a server on this machine that also serves cut-off, changed and endless files."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest

from bench.basics.errors import UsageError
from bench.data import downloads, load_dataset
from bench.data.downloads import REMOTES, RemoteFile

CIFAR_MEMBERS = (*downloads.CIFAR_TRAIN, *downloads.CIFAR_TEST)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; spoils answers as the server's ``fault`` says, and counts requests."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.fault != "cut off":
            return super().do_GET()
        content = (self.server.root / self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    root = tmp_path / "server"
    root.mkdir()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    made.root, made.fault, made.requests = root, None, []
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def publish(server, monkeypatch, name, contents):
    """Put files on the server and make them the known ones of a data set, with their checksums."""
    (server.root / name).mkdir()
    files = []
    for file, content in contents.items():
        (server.root / name / file).write_bytes(content)
        files.append(RemoteFile(file, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(REMOTES, name, replace(REMOTES[name], files=tuple(files)))


def idx(array) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def digits(server, monkeypatch):
    """A small MNIST on the server: 60 training and 20 test pictures of 5x4 pixels."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("t10k", 20)):
        arrays[f"{split}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (count, 5, 4))
        arrays[f"{split}-labels-idx1-ubyte.gz"] = np.arange(count) % 10
    publish(server, monkeypatch, "mnist", {name: idx(array) for name, array in arrays.items()})
    return arrays


def cache_files(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def message(name, **options) -> str:
    with pytest.raises(UsageError) as error:
        load_dataset(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_idx_files_are_fetched_read_and_cached(server, digits, tmp_path, capfd):
    data = load_dataset("mnist_38", mirror=server.url)
    kept = np.isin(digits["t10k-labels-idx1-ubyte.gz"], (3, 8))
    assert data.classes == ("3", "8") and data.source == f"{server.url}/mnist"
    assert np.array_equal(
        data.x_test[:, 0], digits["t10k-images-idx3-ubyte.gz"][kept].astype(np.float32) / np.float32(255)
    )
    assert data.y_test.tolist() == [1, 0, 1, 0]
    assert cache_files(tmp_path) == sorted(digits)
    assert "\r" not in capfd.readouterr().err, "a progress bar without a terminal"
    load_dataset("mnist:3-8", mirror=server.url)
    assert len(server.requests) == 4, "the second load should come from the cache"


def test_mirror_and_cache_from_the_environment(server, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_MIRROR", server.url + "/")
    load_dataset("mnist", sensitive=3, cache_dir=tmp_path / "other")
    assert len(list((tmp_path / "other" / "mnist").iterdir())) == 4


def test_a_changed_file_is_refused_and_not_kept(server, digits, tmp_path):
    path = server.root / "mnist" / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    text = message("mnist_38", mirror=server.url)
    assert "train-labels" in text and "does not have the checksum" in text and "--data-dir" in text
    assert cache_files(tmp_path) == ["train-images-idx3-ubyte.gz"]


def test_a_cut_off_download_is_refused_and_not_kept(server, digits, tmp_path):
    server.fault = "cut off"
    text = message("mnist_38", mirror=server.url)
    assert "cannot download" in text and "train-images" in text and "BENCH_MIRROR" in text
    assert cache_files(tmp_path) == []


def test_a_truncated_file_is_refused_and_not_kept(server, digits, tmp_path):
    path = server.root / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    assert "does not have the checksum" in message("mnist_38", mirror=server.url)
    assert cache_files(tmp_path) == []


def test_no_more_than_the_known_size_is_written(server, digits, tmp_path, monkeypatch):
    written = []
    plain = downloads._CappedWriter.write

    def counting(self, block):
        plain(self, block)
        written.append(len(block))

    monkeypatch.setattr(downloads._CappedWriter, "write", counting)
    (server.root / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"\0" * 3_000_000)
    assert "does not have the checksum" in message("mnist_38", mirror=server.url)
    assert sum(written) <= REMOTES["mnist"].files[0].size
    assert cache_files(tmp_path) == []


def test_a_damaged_cache_is_fetched_again(server, digits, tmp_path):
    before = load_dataset("mnist_38", mirror=server.url)
    (tmp_path / "cache" / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"damaged")
    assert load_dataset("mnist_38", mirror=server.url).sha256 == before.sha256
    assert len(server.requests) == 5


def test_missing_file_and_dead_server(server, digits):
    (server.root / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    assert "404" in message("mnist_38", mirror=server.url)
    assert "cannot download" in message("mnist_38", mirror="http://127.0.0.1:9")
    assert "cannot download" in message("mnist_38", mirror="nonsense")


def test_a_cache_that_cannot_be_written(server, digits, tmp_path):
    (tmp_path / "file").write_text("x")
    text = message("mnist_38", mirror=server.url, cache_dir=tmp_path / "file")
    assert "cannot write" in text and "BENCH_CACHE_DIR" in text


@pytest.mark.parametrize("content", [b"", b"\0\0\x0d\x03" + b"\0" * 12, struct.pack(">HBBI", 0, 8, 1, 2**31)])
def test_bad_idx_contents(server, monkeypatch, content):
    """Wrong type, and more values declared than there are; the checksum is right."""
    names = [file.name for file in REMOTES["mnist"].files]
    publish(server, monkeypatch, "mnist", {name: gzip.compress(content) for name in names})
    assert "cannot read the download mnist" in message("mnist_38", mirror=server.url)


def cifar_archive(members) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def cifar_records(rng, count=20):
    pixels = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    return np.concatenate([labels[:, None], pixels.reshape(count, -1)], axis=1), pixels


def test_cifar_binary_version_is_read_in_memory(server, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    records = {name: cifar_records(rng) for name in CIFAR_MEMBERS}
    members = {f"cifar-10-batches-bin/{name}": made.tobytes() for name, (made, _) in records.items()}
    members["../../escaped.bin"] = b"x" * 10
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": cifar_archive(members)})
    data = load_dataset("cifar10_catsdogs", mirror=server.url)
    assert data.classes == ("cat", "dog") and data.input_shape == (3, 32, 32)
    assert np.array_equal(data.x_test[0], records["test_batch.bin"][1][3] / np.float32(255))
    assert data.y_test.tolist() == [1, 0, 1, 0]
    assert len(data.x_train) + len(data.x_val) == 5 * 4
    assert cache_files(tmp_path) == ["cifar-10-binary.tar.gz"]
    assert not list(tmp_path.rglob("escaped.bin"))


@pytest.mark.parametrize("case", ["missing batch", "odd size", "no archive"])
def test_bad_cifar_archives(server, monkeypatch, case):
    made = cifar_records(np.random.default_rng(0))[0].tobytes()
    members = dict.fromkeys(CIFAR_MEMBERS, made)
    if case == "missing batch":
        del members["data_batch_4.bin"]
    elif case == "odd size":
        members["data_batch_4.bin"] = made[:-1]
    content = b"no archive" if case == "no archive" else cifar_archive(members)
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": content})
    text = message("cifar10_catsdogs", mirror=server.url)
    assert "cannot read the download cifar10" in text
    assert case == "no archive" or "data_batch_4.bin" in text

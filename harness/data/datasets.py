"""Data sets by name: categories of good training images, labelled test images, masks."""

from pathlib import Path

from harness.data.contract import Dataset
from harness.data.disturbed import disturbed
from harness.data.embedded.surfaces import VERSION, write_surfaces
from harness.data.folders import existing
from harness.data.layouts import LAYOUTS, recognise
from harness.data.layouts.folder import Folder, which_are_good
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.reading import BY_NAME
from harness.errors import InputError, unknown
from harness.experiment.settings import Folders

EMBEDDED = "surfaces"
DISTURBED = "disturbed-"


def dataset_names() -> tuple[str, ...]:
    """List the names that :func:`open_dataset` takes.

    >>> dataset_names()[:2], "disturbed-btad" in dataset_names()
    (('surfaces', 'mvtec_ad'), True)
    """
    plain = (EMBEDDED, *LAYOUTS)
    return (*plain, *(DISTURBED + name for name in plain))


def open_dataset(
    name: str, *, folder: Path | None, cache: Path, folders: Folders = BY_NAME
) -> Dataset:
    """Open a data set by name.

    Args:
        name: one of :func:`dataset_names`. ``surfaces`` is embedded; with a folder it means
            whatever layout is recognised there.
        folder: ``--data``.
        cache: where the embedded set is written, once.
        folders: which of a person's own folders hold what; then the layout is ``folder``.

    Raises:
        InputError: an unknown name, a folder that was not given, or one that is not of the
            layout.
    """
    if name.startswith(DISTURBED):
        inner = name.removeprefix(DISTURBED)
        return disturbed(open_dataset(inner, folder=folder, cache=cache, folders=folders))
    if name not in dataset_names():
        raise unknown("data set", name, dataset_names())
    if folder is None:
        if name == EMBEDDED:
            return MvtecAd(write_surfaces(cache), name=EMBEDDED, drawn=f"{EMBEDDED} {VERSION}")
        raise InputError(
            f"this study runs on {name}, which is not embedded; expected --data DIR with its "
            "images, or --dataset surfaces"
        )
    folder = existing(folder)
    if folders:
        if name not in (EMBEDDED, Folder.layout):
            raise InputError(
                f"--good, --good-test, --defective and --masks name folders of one's own images; "
                f"expected --dataset {Folder.layout} with them; got {name}"
            )
        return Folder(folder, folders)
    found = recognise(folder)
    if name == EMBEDDED:
        if found is None:
            raise InputError(
                f"--data: expected images or a known layout ({', '.join(LAYOUTS)}) in {folder}; "
                f"found neither{which_are_good(folder)}"
            )
        return LAYOUTS[found](folder)
    try:
        return LAYOUTS[name](folder)
    except InputError as error:
        if found in (None, name):
            raise
        raise InputError(
            f"{error}; the layout looks like {found}: add --dataset {found}"
        ) from None

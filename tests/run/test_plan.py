"""What a plan asks of the images."""

import pytest
from tiny import TINY, write_category

from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.settings import Settings
from harness.experiment.study import Study
from harness.run.plan import make_plan


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gets_the_images_that_it_needs(method, tmp_path):
    """One is enough for a bank; a Gaussian or a flow is of two at the least."""
    write_category(tmp_path / "one", good=1, bad=1)
    settings = Settings(results=tmp_path / "results", data=tmp_path, device="cpu")
    variant = TINY.replace(method=method)
    study = Study(name="s", asks="Enough?", bases={"base": variant}, seeds=(0,))
    if METHODS[method].images == 1:
        assert len(make_plan(study, settings).missing()) == 1
        return
    with pytest.raises(InputError, match=r"at least 2 images of one .*; got 1 .*=spade or patchc"):
        make_plan(study, settings)


def test_memory_banks_alone_need_no_second_image():
    assert {name for name, m in METHODS.items() if m.images == 1} == {"spade", "patchcore"}

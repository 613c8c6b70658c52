"""Parameter accounting: the exact counts, by construction, by hand and by the cycle."""

from collections import Counter

import pytest

from harness.bundled import bundled
from harness.features.extractor import Extractor
from harness.paper import parameters
from harness.paper.ledger import read_published
from harness.run.measure import count_parameters
from harness.studies import STUDIES
from harness.studies.paper import CAIT, PAPER, RESNET18

PUBLISHED = read_published(bundled("results", "paper", "published.csv"))


@pytest.fixture(scope="module")
def rows():
    return parameters.account(PUBLISHED)


def row(rows, backbone, kernels, coupling, steps, width):
    asked = (backbone, kernels, coupling, steps, width)
    keys = ("backbone", "kernels", "coupling", "flow_steps", "width")
    (found,) = (r for r in rows if tuple(r[k] for k in keys) == asked)
    return found


@pytest.mark.parametrize(
    ("reading", "flow", "rounds"),
    [
        (("ResNet18", "3", "one-sided", 8, "C/2"), 4_657_408, False),
        (("ResNet18", "3,1", "one-sided", 8, "C/2"), 2_593_024, False),
        (("Wide-ResNet50-2", "3,1", "one-sided", 8, "C/2"), 41_337_856, True),
        (("DeiT", "3,1", "one-sided", 20, "128"), 14_794_240, True),
        (("CaiT", "3,1", "one-sided", 20, "128"), 14_794_240, True),
        (("CaiT", "3,1", "two-sided", 20, "64"), 14_809_600, True),
        (("DeiT", "3,1", "two-sided", 20, "64"), 14_809_600, True),
        (("CaiT", "3,1", "one-sided", 20, "0.16·C/2"), 7_074_500, False),
        (("DeiT", "3", "one-sided", 20, "128"), 26_590_720, True),
        (("Wide-ResNet50-2", "3", "one-sided", 8, "C/2"), 74_368_000, True),
        (("Wide-ResNet50-2", "3,1", "two-sided", 4, "C/2"), 41_323_520, True),
        (("Wide-ResNet50-2", "3,1", "two-sided", 8, "C/2"), 82_647_040, False),
    ],
)
def test_exact_counts(rows, reading, flow, rounds):
    found = row(rows, *reading)
    assert found["flow"] == flow
    assert found["rounds"] is rounds


def test_with_the_reproductions_layer_norm(rows):
    found = row(rows, "ResNet18", "3", "one-sided", 8, "C/2")
    assert found["flow"] + found["norm"] == 5_574_912
    assert found["norm"] == 2 * (64 * 64 * 64 + 128 * 32 * 32 + 256 * 16 * 16)
    assert found["rounds_with_norm"] is False
    assert {r["norm"] for r in rows if r["backbone"] in ("DeiT", "CaiT")} == {0}
    # gathierry's own recipes, as its issues print them
    names = {n: v for v, n in STUDIES["reproductions"].named.items()}
    for name, flow_and_norm in (("ResNet18", 5_574_912), ("CaiT", 7_074_500)):
        counts = count_parameters(names[f"gathierry, {name}"])
        assert counts.additional == flow_and_norm


def test_every_reading_is_there_once(rows):
    assert len(rows) == 4 * 2 * 3 * 9
    keys = ("backbone", "kernels", "coupling", "flow_steps", "width")
    assert max(Counter(tuple(r[k] for k in keys) for r in rows).values()) == 1


def test_a_count_by_hand(rows):
    """A subnet has two convolutions with biases; a step also an affine of 2 C."""

    def step(channels, hidden, kernel):
        half = channels // 2
        first = half * hidden * kernel**2 + hidden
        second = hidden * channels * kernel**2 + channels  # s and t of the other half
        return first + second + 2 * channels

    by_hand = sum(4 * (step(c, c // 2, 3) + step(c, c // 2, 1)) for c in (64, 128, 256))
    assert row(rows, "ResNet18", "3,1", "one-sided", 8, "C/2")["flow"] == by_hand
    assert row(rows, "CaiT", "3", "one-sided", 20, "64")["flow"] == 20 * step(768, 64, 3)
    frozen = row(rows, "ResNet18", "3,1", "one-sided", 8, "C/2")["frozen"]
    assert frozen == 8 * (64 + 128 + 256)


@pytest.mark.parametrize("name", ["ResNet18", "Wide-ResNet50-2", "CaiT"])
def test_one_cycle_counted_is_the_whole_model(rows, name):
    chosen = [h for h in parameters.hypotheses() if h[0] == name][:: 54 // 6]
    assert len(chosen) == 6
    for backbone, width, variant in chosen:
        whole = count_parameters(variant)
        kernels = ",".join(map(str, variant.kernels))
        found = row(rows, backbone, kernels, variant.coupling, variant.flow_steps, width)
        assert (whole.flow, whole.frozen) == (found["flow"], found["frozen"])
        if name != "CaiT":
            assert whole.norm == found["norm"]


def test_rounding_is_to_the_printed_figure(rows):
    for r in rows:
        assert r["rounds"] is (f"{r['flow'] / 1e6:.1f}" == f"{r['published']:.1f}")
        with_norm = (r["flow"] + r["norm"]) / 1e6
        assert r["rounds_with_norm"] is (f"{with_norm:.1f}" == f"{r['published']:.1f}")


def test_the_printed_counts_and_which_are_unverified(rows):
    printed = {(r["backbone"], r["kernels"]): (r["published"], r["status"]) for r in rows}
    assert printed == {
        ("ResNet18", "3"): (4.9, "confirmed"),
        ("ResNet18", "3,1"): (2.7, "confirmed"),
        ("Wide-ResNet50-2", "3"): (74.4, "unverified"),
        ("Wide-ResNet50-2", "3,1"): (41.3, "confirmed"),
        ("DeiT", "3"): (26.6, "unverified"),
        ("DeiT", "3,1"): (14.8, "confirmed"),
        ("CaiT", "3"): (26.6, "unverified"),
        ("CaiT", "3,1"): (14.8, "confirmed"),
    }


def test_without_a_ledger_nothing_rounds(monkeypatch):
    one = next(h for h in parameters.hypotheses())
    monkeypatch.setattr(parameters, "hypotheses", lambda: iter([one]))
    (found,) = parameters.account([])
    assert (found["published"], found["status"], found["rounds"]) == (None, None, None)


def test_feature_shapes_of_the_four_backbones():
    shapes = [Extractor.on_meta(v.feature_spec).shapes for v in PAPER.values()]
    assert shapes[0] == ((64, 64, 64), (128, 32, 32), (256, 16, 16))
    assert shapes[1] == ((256, 64, 64), (512, 32, 32), (1024, 16, 16))
    assert shapes[2:] == [((768, 24, 24),), ((768, 28, 28),)]


def test_equal_parameters_of_four_two_sided_and_eight_one_sided_steps():
    one, two, four = (count_parameters(v).flow for v in STUDIES["coupling"].variants)
    assert four == pytest.approx(one, rel=1e-3)  # they differ by four affines of 2 C
    assert one - four == 4 * 2 * (64 + 128 + 256)
    assert two == 2 * four


def test_the_baselines_counts_are_those_of_today(rows):
    from harness.paper.baseline import compare_counts
    from harness.paper.gap import counted
    from harness.paper.ledger import ledger

    assert {v.digest for v in (RESNET18, CAIT)} <= set(counted(ledger()))
    variants = {k: count_parameters(v).additional for k, v in counted(ledger()).items()}
    fresh = {"readings": rows, "variants": variants}
    table = compare_counts(fresh, bundled("results", "baseline"))
    assert set(table["verdict"]) == {"same"}, table[table["verdict"] != "same"]["cell"].tolist()

"""Parts of a study: each cell in one, shared trainings together, about as costly."""

import json
import random

import counted
import pytest
from handmade import record, write_rows
from tiny import Here, write_category

from harness.cli.main import main
from harness.errors import InputError
from harness.experiment.settings import Settings, Shard
from harness.experiment.store import read_records
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.run import estimate, shards, simulate
from harness.run.merge import _content
from harness.run.plan import plan_without_data
from harness.run.shards import deal, imbalance, part_of, training_works
from harness.studies import STUDIES


def cells(*, variants=6, categories=5, seeds=3, seed=0):
    """Trainings of costs that differ tenfold, each with a variant that differs in scoring."""
    rng = random.Random(seed)
    costs = {}
    for steps in range(1, variants + 1):
        for name in map(str, range(categories)):
            cost = rng.uniform(1, 10)
            for number in range(seeds):
                for smoothing in (0.0, 2.0):
                    variant = Variant(flow_steps=steps, smoothing=smoothing)
                    costs[Cell(variant, name, number)] = cost
    return costs


@pytest.mark.parametrize("of", [1, 2, 3, 7, 16])
def test_every_cell_is_in_one_part_with_those_that_share_its_training(of):
    costs = cells()
    parts = deal(costs, of)
    assert len(parts) == of
    assert sorted(c for part in parts for c in map(list(costs).index, part)) == list(
        range(len(costs))
    )
    where = {}
    for number, part in enumerate(parts):
        for c in part:
            training = (c.variant.training.digest, c.category, c.seed)
            assert where.setdefault(training, number) == number


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_within_fifteen_percent(seed):
    costs = cells(seed=seed)
    assert 0 <= imbalance(costs, deal(costs, 8)) < 0.15


def test_more_parts_than_trainings_leave_empty_ones():
    costs = cells(variants=1, categories=1, seeds=1)
    assert sorted(map(len, deal(costs, 3))) == [0, 0, 2]


def test_the_order_of_the_longest_decides():
    few = {Cell(Variant(), str(cost), 0): float(cost) for cost in (1, 2, 3, 4, 5, 6)}
    assert [[c.category for c in part] for part in deal(few, 3)] == [
        ["1", "6"], ["2", "5"], ["3", "4"]
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/5", "1.0/3",
                                  "9" * 400 + "/3", "١/٣"])  # fmt: skip
def test_other_shards_are_refused(text):
    with pytest.raises(InputError, match="expected i/n"):
        Shard.parse(text)


def pigeonhole(works, of):
    """What no split is below: of the n·j + 1 largest, some part has j + 1."""
    largest = sorted(works, reverse=True)
    least = [sum(largest[j * of - j : j * of + 1]) for j in range(1, len(largest) // of)]
    return max(largest[0], *least) * of / sum(largest) - 1


@pytest.mark.parametrize("of", [2, 3, 8])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_split_within_fifteen_percent(name, of, monkeypatch, tmp_path):
    """But where a few trainings are most of the work: then as well as it can be."""
    monkeypatch.setattr(shards, "measure", counted.measure)
    works = training_works(plan_without_data(STUDIES[name], Settings(results=tmp_path)))
    single = list({shards._training(c): work for c, work in works.items()}.values())
    assert len(single) >= 3 * of
    uneven = imbalance(works, deal(works, of))
    assert uneven < 0.15 or uneven < pigeonhole(single, of) + 0.01
    assert (uneven > 0.15) == ((name, of) == ("recipe", 8))  # nine of 27 are nearly all of it


@pytest.mark.long
def test_the_costs_that_the_tests_know_are_those_that_are_counted():
    for variant in STUDIES["surfaces"].variants:
        assert counted.measure(variant).macs == counted.module.measure(variant).macs


def test_a_part_is_the_same_whatever_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "measure", counted.measure)
    study, parts = STUDIES["kernels"], []
    for results in (tmp_path / "none", tmp_path / "some"):
        plan = plan_without_data(study, Settings(results=results))
        parts.append([part_of(plan, Shard(n, 3)).cells for n in (1, 2, 3)])
        write_rows(tmp_path / "some", [(study.variants[0], "bottle", 0, 0.9)])
    assert parts[0] == parts[1]
    assert sorted(map(plan.cells.index, sum(parts[0], ()))) == list(range(len(plan.cells)))
    assert part_of(plan, None) is plan


STUDY = """
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
STUDY = Study(name="three", asks="?", seeds=(0, 1), dataset="mvtec_ad",
    categories=("left", "right"),
    bases={"base": Variant(backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1, 2),
        flow_steps=2, epochs=1, batch_size=8)},
    vary=one_factor(flow_steps=(1,), smoothing=(2.0,)))
"""


def files(results, pattern):
    return {p.relative_to(results): p.read_bytes() for p in (results / "runs").rglob(pattern)}


@pytest.mark.whole
def test_three_shards_merged_equal_the_whole_bit_for_bit(monkeypatch, tmp_path, capsys):
    """8 trainings of 12 runs, by the commands as a person gives them."""
    monkeypatch.setattr("harness.run.sweep.open_executor", lambda settings: Here())
    (tmp_path / "three.py").write_text(STUDY)
    for seed, name in enumerate(("left", "right")):
        write_category(tmp_path / "data" / name, good=6, bad=2, seed=seed)
    command = ["run", str(tmp_path / "three.py"), "--data", str(tmp_path / "data"), "--no-speed",
               "--device", "cpu", "--jobs", "1", "--set", "leaks=allow"]  # fmt: skip
    assert main([*command, "--results", str(tmp_path / "whole")]) == 0
    folders = [str(tmp_path / f"part-{n}") for n in (1, 2, 3)]
    for n, folder in enumerate(folders, 1):
        assert main([*command, "--results", folder, "--shard", f"{n}/3"]) == 0
        assert f"shard {n}/3:" in capsys.readouterr().out
    own = [len(list(read_records(tmp_path / f"part-{n}"))) for n in (1, 2, 3)]
    assert sum(own) == 12
    assert min(own) >= 3
    joined = tmp_path / "joined"
    assert main(["merge", *folders, "--into", str(joined)]) == 0
    assert "12 runs copied, 0 were there" in capsys.readouterr().out
    assert files(joined, "*.npz") == files(tmp_path / "whole", "*.npz")
    for one, other in zip(read_records(joined), read_records(tmp_path / "whole"), strict=True):
        assert _content(one) == _content(other)
    assert main([*command, "--results", str(joined), "--shard", "2/3"]) == 0
    assert "0 to run" in capsys.readouterr().out


def test_the_command_refuses_other_shards_and_clusters_in_one_line(capsys, tmp_path):
    for words in (["run", "--shard", "4/3"], ["plan", "--shard", "x"], ["plan", "--on", "8 GPU"],
                  ["plan", "--on", "2 nodes × 8 GPU", "--shard", "1/3"],
                  ["plan", "--executor", "ray"]):  # fmt: skip
        command, *options = words
        assert main([command, "surfaces", "--results", str(tmp_path), *options]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert options[0] in said
        assert ": expected" in said


@pytest.mark.parametrize("as_json", [True, False])
def test_a_plan_on_a_cluster_says_in_which_units(monkeypatch, tmp_path, capsys, as_json):
    rates = estimate.Rates(1e-9, 1e-10, "a stopwatch", "cpu", "chip", threads=1, cores=2)
    monkeypatch.setattr(simulate, "measured_rates", lambda records, settings: rates)
    monkeypatch.setattr(shards, "measure", counted.measure)
    monkeypatch.setattr(estimate, "measure", counted.measure)
    words = ["plan", "kernels", "--on", "4 nodes × 8 GPU", "--results", str(tmp_path)]
    words += ["--executor", "ray", "--device", "cuda"]  # of which the nodes know, not we
    assert main([*words, *["--json"] * as_json]) == 0
    said = capsys.readouterr().out
    if as_json:
        read = json.loads(said)
        assert (read["counted_as"], read["slots_per_node"]) == ("1 core of chip", 8)
        assert read["shared_folder"]["wall_seconds"] <= read["folder_per_node"]["wall_seconds"]
        assert read["rates"]["train"] == 1e-9
    else:
        assert "no record of a GPU is known: each is counted as if it were 1 core of chip" in said
        assert "harness run surfaces --device cuda --results" in said
        assert "90 runs, 90 trainings, 32 at a time" in said


def test_records_of_a_gpu_tell_of_it_wherever_they_are_read(tmp_path):
    made = record(Variant(), "a", 0, 0.9)
    made.environment.device, made.environment.device_name = "cuda", "card"
    made.macs.flow, made.measured.speed.fps = 1000, 10.0
    unit = simulate.unit_of(
        simulate.Cluster(4, 8, "GPU"), [made], Settings(results=tmp_path, device="cpu")
    )
    assert (unit.says, unit.slots, unit.rates.name) == ("", 8, "card")
    assert unit.rates.train == pytest.approx(1.0 / (1000 * 9))  # 9 images, one epoch, a second
    assert unit.rates.source == "1 recorded runs on card"

"""The end of a study: two runs of unequal length, and the core of the one that ends first."""

import tempfile

from benchmarks.common import Child, Options, Part, Row, columns, cores, in_child, ratio

SIDES = {"as usual": [], "--grow": ["--grow"]}
EPOCHS = 6


def measure(options: Options) -> Part:
    """Both in turns, with features made anew each time."""
    epochs = 2 if options.quick else EPOCHS
    done: dict[str, list[Child]] = {}
    for _ in range(options.turns(3)):
        for name, words in SIDES.items():
            with tempfile.TemporaryDirectory(dir=options.work) as folder:
                child = in_child(
                    options, "idle", "side", watch=True, words=[*words, "--jobs", "2"],
                    results=folder, epochs=epochs,
                )  # fmt: skip
            done.setdefault(name, []).append(child)
    seconds = {name: [c.seconds for c in children] for name, children in done.items()}
    rows: list[Row] = []
    for name, children in done.items():
        busy = [c.busy / (cores() * c.seconds) for c in children]
        rows.append({"side": name, **columns(seconds[name], "s")})
        rows[-1]["share of the cores that idles, %"] = round(100 * (1 - max(busy)), 1)
    part = Part(
        protocol=[
            f"Two variants, 3×3 and 3×3 and 1×1 in turns, one category, {epochs} epochs, "
            f"{options.size} px, float32, side by side on {cores()} cores; a whole process, with "
            "its imports and features. Processor time is sampled once a second."
        ],
        tables={"Two runs of unequal length": rows},
    )
    part.claim("The same two with --grow", ratio(seconds["as usual"], seconds["--grow"]), 1.1)
    return part


def side(options: Options) -> list[Row]:
    """``harness run`` on a study of the two."""
    from dataclasses import replace

    from benchmarks import sweep

    extra = {**options.extra, "precision": "float32", "kinds": 2}
    return sweep.ours(replace(options, epochs=(options.extra["epochs"],), extra=extra))

"""Commands about this machine: what it gives, the feature cache, the shell."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.cli import options
from harness.escape import in_line
from harness.experiment.feature_spec import shape_of
from harness.studies import STUDIES

if TYPE_CHECKING:
    from harness.features.cache import FeatureCache

# What shells are told beside what they find in the parser; {studies}: names.
PREAMBLE = {
    "bash": "_harness_study() {{ compgen -W '{studies}' -- $1; compgen -f -X '!*.py' -- $1; }}",
    "zsh": "_harness_study() {{ _alternative 'studies:study:({studies})' "
    "'files:file:_files -g \"*.py\"' }}",
    "tcsh": "",
}


def doctor(options: options.Doctor) -> int:
    """Print what this machine, the data and the weights give."""
    from harness.cli.doctor import REMARKS, examine

    report = examine(
        data=options.data,
        folders=options.folders,
        dataset=options.dataset,
        weights=options.weights,
        results=options.results,
    )
    code = int(options.strict and bool(report[REMARKS]))
    if options.json:
        print(json.dumps(report, indent=1))
        return code
    for section, facts in report.items():
        print(section)
        for name, value in facts.items():
            if isinstance(value, list):
                print(f"  {len(value)} {name}", *value, sep="\n    ")
            else:
                print(f"  {name:40} {value}")
    return code


def cache(options: options.Cache) -> int:
    """Show or clear the feature cache."""
    from harness.features.cache import FeatureCache

    cache = FeatureCache(options.results / "cache" / "features")
    entries = [
        {"entry": folder.name, "bytes": size, **meta["key"], "images": meta["images"]}
        for folder, meta, size in cache.entries()
    ]
    if options.clear:
        return _clear(cache, as_json=options.json)
    if options.json:
        print(json.dumps(entries, indent=1))
        return 0
    for e in entries:
        size = "×".join(map(str, shape_of(e["image_size"])))
        print(
            f"{e['entry']}  {e['bytes'] / 2**20:8.1f} MiB  {e['images']:4} images  "
            f"{in_line(e['dataset'] + '/' + e['category'])}  {e['backbone']} @ {size}"
        )
    total = sum(e["bytes"] for e in entries)
    print(f"{len(entries)} entries, {total / 2**20:.1f} MiB below {cache.folder}")
    return 0


def _clear(cache: "FeatureCache", *, as_json: bool) -> int:
    """Remove what no start uses; the rest is named, with who uses it."""
    cleared: dict[str, Any] = {"entries": 0, "bytes": 0, "kept": []}
    if cache.folder.is_dir():
        before = len(cache.entries())
        freed = cache.make_way()
        with cache.claims as claims:
            cleared["bytes"] = freed + cache.clear()
            kept = cache.entries()
            cleared["entries"] = before - len(kept)
            for folder, meta, _ in kept:
                holders = [claims.signs.read(token) for token in claims.users(folder.name)]
                who = "; ".join(f"{h.study} ({h.where})" for h in holders if h) or "another start"
                name = f"{meta['key']['dataset']}/{meta['key']['category']}"
                cleared["kept"].append({"entry": folder.name, "of": name, "by": who})
    if as_json:
        print(json.dumps({"cleared": cleared}, indent=1))
        return 0
    print(f"cleared {cleared['entries']} entries, {cleared['bytes'] / 2**20:.1f} MiB")
    for one in cleared["kept"]:
        print(in_line(f"kept {one['entry']}, {one['of']}: in use by {one['by']}"))
    return 0


def completion(options: options.Completion) -> int:
    """Print what completes this command in your shell: eval "$(harness completion bash)"."""
    import shtab

    from harness.cli.main import make_parser

    parser = make_parser(grouped=False)
    for action in _actions(parser):
        if action.dest == "study":
            action.complete = {"bash": "_harness_study", "zsh": "_harness_study"}
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY
    preamble = PREAMBLE[options.shell].format(studies=" ".join(STUDIES))
    print(shtab.complete(parser, options.shell, preamble=preamble))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Every option and argument of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)

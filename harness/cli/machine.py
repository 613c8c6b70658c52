"""Commands about this machine: what it gives, the feature cache, the shell."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from harness.cli import options
from harness.experiment.feature_spec import shape_of
from harness.studies import STUDIES

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
        freed = cache.clear()
        about = {"entries": len(entries), "bytes": freed}
        said = f"cleared {len(entries)} entries, {freed / 2**20:.1f} MiB"
        print(json.dumps({"cleared": about}, indent=1) if options.json else said)
        return 0
    if options.json:
        print(json.dumps(entries, indent=1))
        return 0
    for e in entries:
        size = "×".join(map(str, shape_of(e["image_size"])))
        print(
            f"{e['entry']}  {e['bytes'] / 2**20:8.1f} MiB  {e['images']:4} images  "
            f"{e['dataset']}/{e['category']}  {e['backbone']} @ {size}"
        )
    total = sum(e["bytes"] for e in entries)
    print(f"{len(entries)} entries, {total / 2**20:.1f} MiB below {cache.folder}")
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

"""Records mirrored to a file store of MLflow, for those who look at runs there.

Nothing else depends on it: the records stay what counts. It needs the extra ``mlflow``.
"""

import os
from pathlib import Path

from harness.errors import InputError, warn
from harness.experiment.store import read_records
from harness.experiment.values import show
from harness.experiment.variant import Variant
from harness.report.compare import name_of

LONGEST = 500  # characters of a parameter


def mirror(results: Path, store: Path) -> tuple[int, int]:
    """Write every record as a run of MLflow: fields as parameters, metrics, epochs as steps.

    Args:
        results: the folder of records; damaged ones are named and left out.
        store: MLflow's folder (``mlflow ui --backend-store-uri STORE`` shows it).

    Returns:
        How many runs were written, and how many were there already.

    Raises:
        InputError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError(
            "mirror: expected MLflow; found none; pip install 'fastflow-harness[mlflow]'"
        ) from None
    client = MlflowClient(tracking_uri=store.resolve().as_uri())
    there: dict[str, set[str]] = {}
    written = skipped = 0
    for r in read_records(results, damaged=warn):
        known = client.get_experiment_by_name(r.dataset)
        experiment = known.experiment_id if known else client.create_experiment(r.dataset)
        if experiment not in there:
            runs = client.search_runs([experiment], max_results=50000)
            there[experiment] = {run.data.tags.get("record", "") for run in runs}
        tag = f"{r.digest}/{r.dataset}/{r.category}/seed-{r.seed} {r.measured.finished}"
        if tag in there[experiment]:
            skipped += 1
            continue
        label = f"{r.category}, {name_of(r)}, seed {r.seed}"
        run = client.create_run(experiment, run_name=label)
        fields = Variant.from_fields(r.variant).changes()
        params = {**{k: show(v) for k, v in fields.items()}, "category": r.category,
                  "seed": str(r.seed)}  # fmt: skip
        metrics = [
            Metric(name, value, 0, entry.epoch)
            for entry in r.epochs for name, value in entry.metrics.items()
        ]  # fmt: skip
        metrics += [Metric(f"final_{name}", value, 0, 0) for name, value in r.metrics.items()]
        client.log_batch(
            run.info.run_id, metrics,
            [Param(k, v[:LONGEST]) for k, v in params.items()],
            [RunTag("record", tag), RunTag("commit", r.environment.commit or "unknown")],
        )  # fmt: skip
        client.set_terminated(run.info.run_id)
        written += 1
    return written, skipped

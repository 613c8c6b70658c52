"""A Ray cluster of two nodes on this machine, in a process that ends with its standard input.

Ports are given, as a node on a busy machine would otherwise wait too briefly for its own agents.
"""

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from socket import socket

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_enable_metrics_collection="0", RAY_worker_niceness="0"
)
NAMES = (
    *("metrics_agent_port", "metrics_export_port"),
    *("dashboard_agent_listen_port", "runtime_env_agent_port"),
)


def ports():
    sockets = [socket() for _ in NAMES]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return dict(zip(NAMES, found, strict=True))


def blind(address, folder):
    """Start a node that sees an empty folder in place of this one."""
    words = {
        "metrics_agent_port": "dashboard-agent-grpc-port",
        "dashboard_agent_listen_port": "dashboard-agent-listen-port",
    }
    given = [f"--{words.get(n, n.replace('_', '-'))}={p}" for n, p in ports().items()]
    command = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
        'mount -t tmpfs none "$0" && exec "$@"',
        *(folder, sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}"),
        *("--num-cpus=1", "--object-store-memory=80000000", "--block", "--disable-usage-stats"),
        *given,
    ]
    said = Path("blind.txt")
    with said.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    while "Ray runtime started" not in said.read_text() and process.poll() is None:
        time.sleep(0.2)
    return process


def main():
    from ray.cluster_utils import Cluster

    with closing(sys.stdin):
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
        head = {**node, **ports(), "include_dashboard": False, "no_monitor": True}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        second = cluster.add_node(**node, **ports())
        unseeing = None
        print(cluster.address, flush=True)
        for line in sys.stdin:
            word, _, folder = line.strip().partition(" ")
            if word == "kill":
                cluster.remove_node(second, allow_graceful=False)
            elif word == "add":
                second = cluster.add_node(**node, **ports())
            elif word == "blind":
                unseeing = blind(cluster.address, folder)
            elif word == "see":
                unseeing.terminate()
                unseeing.wait()
            print("done", flush=True)
        cluster.shutdown()


if __name__ == "__main__":
    main()

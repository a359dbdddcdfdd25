"""Ray places the workers on two nodes of a cluster; a node and workers are killed under load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.server.cluster import import_ray
from host.server.orders import CONTROL, NAME_BYTES, WORK
from protocol.errors import InputError
from protocol.keys import write_key_pair
from protocol.sockets import open_socket
from sim.station import LOOPBACK, ROOT, free_port
from tests.host.server.running import Board, Server, grey, is_grey, run_server, until
from tests.host.server.test_losses import load_on

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
try:
    RAY = import_ray()
except InputError as missing:
    pytest.skip(f"{missing}", allow_module_level=True)

STORE_BYTES = 80 << 20  # Ray's least; nothing of ours lies in it
REPLACED_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    nodes: Any = Cluster(initialize_head=True, head_node_args=head)
    yield nodes
    nodes.shutdown()


@pytest.fixture
def served(tmp_path: Path, models: Path, cluster: Any) -> Iterator[tuple[Server, Any]]:
    """A server with two workers, and the cluster's second node."""
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    with run_server(tmp_path, models, "--workers", "2", *on(cluster)) as server:
        with Board(server.endpoint) as board:
            until(lambda: server.metric("beltsight_workers ") == 2, REPLACED_WITHIN_S)
            board.wait_until_ready()
        yield server, node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def on(cluster: Any) -> list[str]:
    where = ["--workers-bind", f"tcp://{LOOPBACK}:{free_port()}"]
    return ["--cluster", "ray", "--cluster-address", cluster.address, *where]


def workers() -> list[int]:
    """Process ids of the actors, whose process Ray names by them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if b"ray::RayWorker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_a_node_is_killed_under_load(served: tuple[Server, Any], cluster: Any) -> None:
    server, node = served
    assert len(workers()) == 2
    with load_on(server, boards=4) as load:
        load.run(1.0, deadline_s=6.0)
        before = sum(load.answered.values())
        cluster.remove_node(node, allow_graceful=False)
        load.run(5.0, deadline_s=6.0)
        assert (load.lost, sum(load.refused.values())) == (0, 0)
        assert sum(load.answered.values()) > before > 0
        assert len(load.answered) == 4
        assert server.metric("beltsight_workers_lost_total") >= 1
        until(lambda: server.metric("beltsight_workers ") == 2, REPLACED_WITHIN_S)  # on the node that is left


def test_a_worker_that_is_killed_is_replaced(served: tuple[Server, Any]) -> None:
    server, _ = served
    with load_on(server, boards=2) as load:
        load.run(0.5, deadline_s=6.0)
        os.kill(workers()[0], signal.SIGKILL)
        load.run(3.0, deadline_s=6.0)
        assert (load.lost, sum(load.refused.values())) == (0, 0)
    until(lambda: server.metric("beltsight_workers ") == 2, REPLACED_WITHIN_S)


def test_a_worker_that_hangs_is_replaced_and_its_work_begun_again(served: tuple[Server, Any]) -> None:
    server, _ = served
    hanging = workers()
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: server.metric("beltsight_workers_lost_total") >= 2, REPLACED_WITHIN_S)
    until(lambda: not set(hanging) & set(workers()), REPLACED_WITHIN_S)
    until(lambda: server.metric("beltsight_workers ") == 2, REPLACED_WITHIN_S)
    with Board(server.endpoint) as board:
        board.wait_until_ready()
        assert is_grey(board.ask(grey(3)), 3)


def test_each_life_of_an_actor_is_another_worker_to_the_front(endpoint: str) -> None:
    """Else a new one that greets before the end of the old was noticed would be taken for it, models and all."""
    code = f"from host.server.cluster import RayWorker; RayWorker().serve('{endpoint}', b'post:', {{}}, 1)"
    names = set()
    with open_socket("ROUTER", endpoint, bind=True, high_water_mark=8, timeout_ms=20_000) as front:
        for _ in range(2):
            with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as life:
                names |= {front.recv_multipart()[0][:NAME_BYTES] for _ in (WORK, CONTROL)}
                life.kill()
    assert len(names) == 2
    assert {name[:5] for name in names} == {b"post:"}


def test_encrypted_workers_and_an_orderly_end(tmp_path: Path, models: Path, cluster: Any) -> None:
    keys = {name: write_key_pair(tmp_path / name, name) for name in ("server", "worker", "board")}
    options = ["--key", str(keys["server"][1]), "--workers-key", str(keys["worker"][1])]
    options += ["--allow", str(tmp_path / "board"), "--allow-workers", str(tmp_path / "worker")]
    with run_server(tmp_path, models, "--workers", "1", *on(cluster), *options) as server:
        until(lambda: server.metric("beltsight_workers ") == 1, REPLACED_WITHIN_S)
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(20) == 0
    until(lambda: not workers(), REPLACED_WITHIN_S)


def test_no_cluster_is_a_line_that_says_what_to_do(tmp_path: Path, models: Path) -> None:
    where = ["--cluster", "ray", "--cluster-address", f"{LOOPBACK}:{free_port()}"]
    with (
        pytest.raises(AssertionError, match=r"no Ray cluster at .*ray start --head"),
        run_server(tmp_path, models, *where, "--workers-bind", f"tcp://{LOOPBACK}:{free_port()}"),
    ):
        pass

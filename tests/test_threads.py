"""Threads and tasks are started by the supervisor alone, so that no end of one is unseen. No exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUPERVISION = ROOT / "protocol" / "supervision.py"
LAYERS = ("protocol", "board", "host", "sim")
# What starts one, by the last part of its name: `threading.Thread`, `asyncio.create_task`, `client.loop_start` …
STARTS = {
    *("Thread", "Timer", "start_new_thread", "_start_new_thread"),
    *("ThreadPool", "ThreadPoolExecutor", "ProcessPoolExecutor", "Pool", "Executor"),
    *("create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe", "run_in_executor"),
    *("ThreadingMixIn", "ThreadingHTTPServer", "ThreadingTCPServer", "ThreadingUDPServer", "ForkingMixIn"),
    *("loop_start", "start_http_server", "start_wsgi_server", "BackgroundTask", "BackgroundTasks"),
    *("start_soon", "start_background_task", "QueueListener", "ThreadProxy", "ThreadDevice"),
}
# Their end reaches whoever awaits them: only where that is done at once.
AWAITED = {"to_thread", "run_in_threadpool", "gather", "run_sync"}


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def starts(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of all that starts a thread or task, or makes it possible."""
    tree = ast.parse(source)
    ours = set(own_names(tree))
    starting, awaitable = STARTS - ours, AWAITED - ours
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            if module not in LAYERS:
                yield from ((node.lineno, alias.name) for alias in node.names if alias.name in STARTS)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            if last_name(node) in starting and not is_annotation(node, tree):
                yield node.lineno, last_name(node)
        elif isinstance(node, ast.Call) and last_name(node.func) in awaitable and id(node) not in awaited:
            yield node.lineno, last_name(node.func)


def own_names(tree: ast.AST) -> Iterator[str]:
    """What the module itself defines, or has from another one of ours, is no library's."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LAYERS:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):  # Pool = Literal["mean", …]
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def is_annotation(wanted: ast.expr, tree: ast.AST) -> bool:
    """A type starts nothing."""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None and any(part is wanted for part in ast.walk(annotation)):
                return True
    return False


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_started_elsewhere(layer: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in (ROOT / layer).rglob("*.py")
        if path != SUPERVISION
        for line, name in starts(path.read_text(encoding="utf-8"))
    ]
    assert not found, "start it by protocol.supervision"


@pytest.mark.parametrize(
    "line",
    [
        "threading.Thread(target=run).start()",
        "from threading import Thread",
        "class Mine(threading.Thread): pass",
        "threading.Timer(1, run)",
        "start = threading.Thread",
        "asyncio.create_task(run())",
        "async def f():\n    task = asyncio.to_thread(run)",
        "client.loop_start()",
        "import _thread\n_thread.start_new_thread(run, ())",
        "with ThreadPoolExecutor() as pool: pass",
        "server = http.server.ThreadingHTTPServer(address, handler)",
        "multiprocessing.Pool(2)",
    ],
)
def test_each_way_of_starting_one_is_found(line: str) -> None:
    assert list(starts(line))


@pytest.mark.parametrize(
    "line",
    [
        "async def f():\n    await asyncio.to_thread(run)",
        "thread: threading.Thread | None = None",
        "supervisor.start('gate', run, silent_s=1.0)",
        "class Timer: pass\nTimer('board')",
    ],
)
def test_what_starts_none_is_let_be(line: str) -> None:
    assert not list(starts(line))

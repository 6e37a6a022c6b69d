"""What in a policy's source makes a run differ from the next: clocks, chance, files, processes."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["impurities"]

_BANNED: Final = frozenset(
    {
        "aiohttp",
        "asyncio",
        "concurrent",
        "ctypes",
        "datetime",
        "fcntl",
        "glob",
        "grpc",
        "http",
        "importlib",
        "io",
        "multiprocessing",
        "os",
        "pandas",
        "pathlib",
        "pickle",
        "platform",
        "pyarrow",
        "pynvml",
        "queue",
        "random",
        "requests",
        "secrets",
        "select",
        "shelve",
        "shutil",
        "signal",
        "simpy",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "torch",
        "urllib",
        "uuid",
        "weakref",
    }
)
"""Modules that reach a clock, chance, the environment, files, processes or a network."""
_TYPE: Final = "numpy.random.Generator"
"""The type of the rng that policies are handed."""
_BANNED_CALLS: Final = {
    "breakpoint": "it stops a server",
    "eval": "a policy is code that can be read",
    "exec": "a policy is code that can be read",
    "hash": "it differs from process to process; use zlib.crc32",
    "id": "it differs from process to process",
    "input": "a policy reads nothing but its arguments",
    "open": "a policy reads nothing but its arguments",
}


def impurities(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line of each import or call that a policy must not make, and what is wrong."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    types = [
        node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr == "Generator"
    ]
    for node in nodes:
        names: list[str] = []
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module]
            if node.module in {"numpy", "numpy.random"}:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            why = _BANNED_CALLS.get(node.func.id)
            if why is not None:
                yield node.lineno, f"calls {node.func.id}(): {why}"
        elif (
            isinstance(node, ast.Attribute)
            and node.attr == "random"
            and isinstance(node.value, ast.Name)
            and node.value.id in {"np", "numpy"}
            and node not in types
        ):
            yield node.lineno, "uses numpy.random: chance comes from the rng that it is handed"
        for name in names:
            drawn = name.startswith("numpy.random") and name != _TYPE
            if name.partition(".")[0] in _BANNED or drawn:
                yield node.lineno, f"imports {name}: a policy reads nothing but its arguments"
            elif name.startswith("inferx.") and name.split(".")[1] not in {"policy", "core"}:
                yield node.lineno, f"imports {name}: a policy imports from inferx.policy"

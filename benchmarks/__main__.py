"""``python -m benchmarks [NAME [options]]``: one measurement (default ``speed``); prints Markdown tables."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys

# Each is a module here with ``add_options(parser)`` and ``run(options) -> int``.
NAMES = ("speed", "durability", "fleet", "idle", "memory", "sidecars", "growth", "costs")


def main(arguments: list[str]) -> int:
    for name in [n for n in os.environ if n.startswith("AWS_") or n.lower().endswith("_proxy")]:
        del os.environ[name]  # nothing of the machine's own credentials or proxies may leak in
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    arguments = arguments or ["speed"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    asked = [name for name in NAMES if name in arguments[:1]] or NAMES
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in asked}
    for name, module in modules.items():
        module.add_options(names.add_parser(name, help=(module.__doc__ or "").splitlines()[0]))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken away
    return int(modules[options.name].run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

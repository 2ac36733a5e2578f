"""The server's half of aiohttp, without the client's: half of the memory and of the time of the import.

``import aiohttp`` runs the package's first module, which imports the whole client. Here the package is
entered without running it; whoever asks it for more than a submodule (the client, in `key_sources`) has it
run then. So the order of imports decides what is loaded, never what works.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any


def _enter_without_running(name: str) -> None:
    spec = find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def missing(attribute: str) -> Any:
        if attribute.startswith("_") or find_spec(f"{name}.{attribute}"):
            raise AttributeError(attribute)
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__.update(__getattr__=missing, __version__="3")  # the true one comes with the rest
    sys.modules[name] = package


_enter_without_running("aiohttp")

from aiohttp.web_protocol import RequestHandler, RequestPayloadError  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

__all__ = ("BaseRequest", "RequestHandler", "RequestPayloadError", "Response", "Server", "StreamResponse")

"""What `run` imports of aiohttp: memory for the whole life of every pod."""

from __future__ import annotations

import subprocess
import sys


def _prints(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_a_sidecar_that_fetches_no_keys_does_not_load_the_http_client() -> None:
    loaded = _prints("import sys, sidecar.server; print(*sorted(sys.modules))").split()
    assert "aiohttp.web_protocol" in loaded
    assert not {"aiohttp.client", "aiohttp.connector", "aiohttp.web_app"} & set(loaded)


def test_the_http_client_is_whole_as_soon_as_somebody_asks_for_it() -> None:
    code = (
        "import sidecar.api.web, aiohttp\n"
        "before = aiohttp.web_protocol.RequestHandler\n"
        "from importlib.metadata import version\n"
        "assert issubclass(aiohttp.ServerDisconnectedError, aiohttp.ClientError)\n"
        "assert aiohttp.__version__ == version('aiohttp')\n"
        "from aiohttp import ClientSession, web\n"
        "print(web.RequestHandler is before, hasattr(aiohttp, 'nothing_of_that_name'))"
    )
    assert _prints(code) == "True False"


def test_the_whole_of_aiohttp_stays_where_somebody_imported_it_first() -> None:
    code = (
        "import aiohttp; first = aiohttp.FormData; import sidecar.api.web; print(first is aiohttp.FormData)"
    )
    assert _prints(code) == "True"

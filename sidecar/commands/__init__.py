"""The commands behind the command line: one module for each, imported when it runs.

None imports asyncio or aiohttp: an init container pays for every import.
"""

from sidecar.commands.syncing import backup, restore

__all__ = ["backup", "restore"]

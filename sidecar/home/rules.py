"""What belongs into a backup and what does not; the same answer for a name in the home and for a key.

In order, the first that speaks decides:

1. locks and temporary files are out, always (`transients`);
2. an exclude pattern takes out, and what lies below with it;
3. an include pattern takes in what the table leaves out, and what lies below with it. Secrets come in only by
   a pattern that names them literally: ``.credentials.json`` exactly, ``sessions/`` or ``backups/`` as the
   pattern's first part;
4. the table (`catalogue`): ``node_modules``, ``.venv`` and credentials at any depth, all else at the root.

Patterns are gitignore lines, seen from the home's root. One that names something inside a directory which the
table leaves out (``debug/latest.txt``) opens that directory for itself alone; the directory must be written
out, without a wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.home.catalogue import (
    JUNK,
    JUNK_ANYWHERE,
    SECRET,
    TAKEN,
    TRANSIENT,
    Verdict,
    is_credentials,
    is_known,
    verdict_at_root,
)
from sidecar.home.patterns import Exclusions, Inclusions
from sidecar.home.transients import CLIENT_AREAS, is_transient

_PLACES_KEPT = 4096


class Rules:
    """The rules in force.

    Raises
    ------
    SettingsError: a pattern that cannot be meant; the message names it.
    """

    def __init__(self, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        self.inclusions = Inclusions(include) if include else None
        self.exclusions = Exclusions(exclude) if exclude else None
        self._places: dict[str, Place] = {}

    def decide(self, path: str, is_directory: bool) -> Verdict:
        """Whether `path` belongs into a backup: what holds for the directories above it counts."""
        parent, _, name = path.rpartition("/")
        return self.place(parent).decide(name, is_directory)

    def takes(self, path: str) -> bool:
        """Whether the file at `path` belongs into a backup, as a scan would find it."""
        return self.decide(path, False).taken

    def place(self, directory: str) -> Place:
        """What holds for the names in `directory` (``""``: the home)."""
        known = self._places.get(directory)
        if known is not None:
            return known
        parent, _, name = directory.rpartition("/")
        if above := self._places.get(parent):
            place = above.below(name)
        else:
            place = Place(self, "", TAKEN, clients_own=True)
            for name in directory.split("/") if directory else ():
                place = place.below(name)
        if len(self._places) >= _PLACES_KEPT:
            self._places.clear()
        self._places[directory] = place
        return place

    def unknown_top_level(self, names: Iterable[str]) -> tuple[str, ...]:
        """Which of `names` (paths or names at the home's root) no rule speaks of, sorted: they are in."""
        tops = {name.partition("/")[0] for name in names}
        return tuple(sorted(top for top in tops if top and not _is_spoken_of(top)))


class Place:
    """One directory as the rules see it: asked for each name in it."""

    __slots__ = ("_clients_own", "_inherited", "_path", "_rules", "taken")

    def __init__(self, rules: Rules, path: str, verdict: Verdict, *, clients_own: bool) -> None:
        self._rules = rules
        self._path = path
        self._clients_own = clients_own
        self._inherited = verdict
        self.taken = verdict.taken

    def decide(self, name: str, is_directory: bool) -> Verdict:
        """Whether `name` in this directory belongs into a backup."""
        inherited = self._inherited
        if not inherited.taken and not inherited.descend:
            return inherited
        if (".lock" in name or ".tmp" in name) and is_transient(
            name, is_directory=is_directory, clients_own=self._clients_own
        ):
            return TRANSIENT
        default = self._default(name, is_directory)
        rules = self._rules
        if rules.exclusions is None and rules.inclusions is None:
            return default
        return self._by_patterns(default, name, is_directory)

    def below(self, name: str) -> Place:
        """The place of the directory `name` in this one."""
        own = name == ".git" or (name in CLIENT_AREAS if not self._path else self._clients_own)
        return Place(self._rules, self._join(name), self.decide(name, True), clients_own=own)

    def _default(self, name: str, is_directory: bool) -> Verdict:
        if not self._inherited.taken:
            return self._inherited
        if not self._path:
            return verdict_at_root(name, is_directory)
        if name in JUNK_ANYWHERE:
            return JUNK
        return SECRET if is_credentials(name) else TAKEN

    def _by_patterns(self, default: Verdict, name: str, is_directory: bool) -> Verdict:
        path, rules = self._join(name), self._rules
        if rules.exclusions is not None and (pattern := rules.exclusions.matching(path, is_directory)):
            return Verdict(False, f"the exclude pattern {pattern} leaves it out")
        if default.taken or rules.inclusions is None:
            return default
        if rules.inclusions.match(path, is_directory, secret=default.secret):
            return TAKEN
        opened = is_directory and rules.inclusions.lead_below(path)
        return Verdict(
            False, default.reason, optional=default.optional, descend=opened, secret=default.secret
        )

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name


def _is_spoken_of(name: str) -> bool:
    return is_known(name) or any(is_transient(name, is_directory=d, clients_own=True) for d in (False, True))

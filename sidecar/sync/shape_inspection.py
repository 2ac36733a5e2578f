"""Whether a home has the directories and links that the manifest carries: what no object can show. Pure.

Compared are where they are, the modes of directories and where links lead; times are not, because a
directory's changes with each file in it and travels only along with something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from sidecar.home.links import link_problem
from sidecar.home.rules import Rules
from sidecar.names import path_problem
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.views import View

_NEXT = "the next checkpoint brings that up to date"


def judged(view: View, rules: Rules) -> Iterator[Finding]:
    """What is to be said of the directories and links of home and manifest; nothing where they are equal.

    What stands below a refused directory is left to the finding of that directory.
    """
    if view.manifest is None:
        return  # that there is none, or why it is of no use, is a finding of its own
    known = {*view.manifest.directories, *view.manifest.links}
    implied = _above({*view.objects, *view.placed, *view.scan.files})
    for path in sorted(known.union(view.scan.directories, view.scan.links)):
        if not path or view.refused_at(path):
            continue
        told = _known(view, rules, path) if path in known else _unknown(view, path, implied)
        yield from (Finding(path, kind, reason) for kind, reason in told)


_Told = Iterator[tuple[Kind, str]]


def _above(paths: Iterable[str]) -> set[str]:
    """The directories that `paths` lie in: a restore makes them with their files, manifest or not."""
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def _known(view: View, rules: Rules, path: str) -> _Told:
    manifest, scan = view.manifest, view.scan
    assert manifest is not None
    directory, link = manifest.directories.get(path), manifest.links.get(path)
    if out := _left_out(rules, path, is_directory=directory is not None):
        yield Kind.PASSED_OVER, out
    elif link and (problem := link_problem(path, link[0])):
        yield Kind.MANIFEST_LIES, f"no restore makes what the manifest has there: {problem}"
    elif directory and (here := scan.directories.get(path)):
        if here.mode != directory[0]:
            modes = f"{here.mode:04o} in the home and {directory[0]:04o} in the manifest"
            yield Kind.TIMES_DIFFER, f"the directory's mode is {modes}"
    elif link and (found := scan.links.get(path)):
        if found.target != link[0]:
            targets = f"{found.target} in the home and to {link[0]} in the manifest"
            yield Kind.LINK_DIFFERS, f"the link leads to {targets}"
    else:
        yield from _not_there(view, path, "link" if link else "directory")


def _left_out(rules: Rules, path: str, *, is_directory: bool) -> str:
    problem = path_problem(path)
    if problem:
        return problem
    verdict = rules.decide(path, is_directory)
    return "" if verdict.taken else verdict.reason


def _unknown(view: View, path: str, implied: Collection[str]) -> _Told:
    if path in view.scan.links:
        yield Kind.NOT_UPLOADED, f"a link that the manifest does not know; {_NEXT}"
    elif path in implied:
        yield Kind.MANIFEST_BEHIND, f"the manifest does not know the directory; {_NEXT}"
    else:
        yield Kind.NOT_UPLOADED, f"a directory without files that the manifest does not know; {_NEXT}"


def _not_there(view: View, path: str, what: str) -> _Told:
    instead = view.standing_at(path)
    if path in view.shape:
        kept = f"; there is {instead} now" if instead else ""
        yield Kind.DELETED_LOCALLY, f"the manifest has a {what} that was deleted in the home{kept}; {_NEXT}"
    elif instead:
        yield Kind.NOT_RESTORED, f"the manifest has a {what} there and the home has {instead}: it is not made"
    else:
        yield (
            Kind.NOT_RESTORED,
            f"the manifest has a {what} that was not restored, or another pod made it since",
        )

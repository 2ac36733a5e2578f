"""Says of each YAML file under the given directories whether it parses, and fails if one does not.

An empty document and a key that is written twice in one mapping are mistakes as well: the second of two
equal keys would win in silence.
"""

import sys
from pathlib import Path

import yaml


class StrictLoader(yaml.SafeLoader):
    """Refuses a mapping with two equal keys."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def problem_of(path: Path) -> str | None:
    """What is wrong with the YAML file `path`, or None."""
    try:
        documents = list(yaml.load_all(path.read_text("utf-8"), StrictLoader))
    except yaml.YAMLError as error:
        return str(error)
    return None if documents and all(documents) else "it holds an empty document"


def main(directories: list[str]) -> int:
    paths = [path for directory in directories for path in sorted(Path(directory).rglob("*.y*ml"))]
    problems = {path: problem for path in paths if (problem := problem_of(path))}
    for path, problem in problems.items():
        print(f"{path}: {problem}", file=sys.stderr)
    print(f"{len(paths)} YAML files, {len(problems)} with a mistake")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

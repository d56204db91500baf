"""The file params.yaml, read as plain values that nothing has checked yet."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from simclr.core.errors import UserError
from simclr.core.printable import format_value, one_line

FILE = Path("params.yaml")
_DEEPEST = 32
"""The deepest nesting of keys and lists: ruamel's time grows faster than the square of the depth of brackets."""


def read(path: Path = FILE) -> dict[str, Any]:
    """Read params.yaml as plain dicts, lists and scalars (YAML 1.2, so that 1e-05 is a number).

    Raises:
        UserError: the file is missing, is not valid YAML, repeats a key, is no mapping, has anchors or tags, or is
            nested too deeply.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text):
            line = event.start_mark.line + 1
            # `dvc exp run -S` would change an anchored value but not its aliases
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise UserError(f"{path}: line {line} has a YAML anchor, alias or tag; only plain values are allowed")
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > _DEEPEST:
                raise UserError(f"{path}: line {line} is nested too deeply")
        content = yaml.load(text)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; run this in the root of the repository, which holds it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {_problem(error)}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: must hold sections named after the stages, not {format_value(content)}")
    return content


def lookup(content: Any, key: str) -> Any:
    """What stands, unchecked, at `key`, such as "pretrain.model", in the nested `content` of params.yaml, or None."""
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _problem(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {one_line(error.problem, 200)}"
    if isinstance(error, UnicodeDecodeError):
        return f"line {error.object[: error.start].count(bytes([10])) + 1}: not UTF-8 ({one_line(error, 200)})"
    return one_line(error, 200)

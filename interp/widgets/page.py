"""One self-contained HTML page from hand-written parts: a template, a style sheet, ES modules, and one block of JSON.

The page may load nothing and send nothing: its policy names the hash of its own script and style sheet and forbids everything else, so even
markup that slipped in could not run. Data come in through the JSON block alone, in which no character can end the block.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\.{1,2}/[a-z_/]+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function|const|class) )", re.MULTILINE)
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def embed_json(value: Mapping[str, Any]) -> str:
    """Compact JSON that is safe inside a script element: no `<`, `>`, `&` or line separators, and no NaN (ValueError)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate is no character, so UTF-8 cannot hold it; a page shows it as "not a character".
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda match: _UNSAFE[match[0]], text)


def join_modules(sources: Sequence[str]) -> str:
    """Join ES modules into one, in order: imports of each other are dropped, and exports become plain declarations.

    The modules import only each other, by `import { ... } from "./name.js";` on a line of its own, and share one name space.
    """
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", source)) for source in sources)


def build_page(folder: Path, modules: Sequence[str], data: Mapping[str, Any]) -> str:
    """The page of a folder that holds `page.html`, `page.css` and the named modules.

    Args:
        folder: where the parts are.
        modules: module names without `.js`, each after those that it imports.
        data: what the page shows, as plain JSON values; untrusted strings are fine.
    """
    script = join_modules([(folder / f"{name}.js").read_text(encoding="utf-8") for name in modules])
    style = (folder / "page.css").read_text(encoding="utf-8")
    return fill_page((folder / "page.html").read_text(encoding="utf-8"), style=style, script=script, data=data)


def fill_page(template: str, *, style: str, script: str, data: Mapping[str, Any]) -> str:
    """Fill a template's {{POLICY}}, {{STYLE}}, {{SCRIPT}} and {{DATA}}; the policy allows this style and this script and nothing else."""
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": embed_json(data)}
    # One pass, so that what is filled in is never searched for places to fill.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], template)


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()

"""A page is one file that can load nothing, and no string in its data can end the block that holds it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_cases import NASTY, frame, manifest, thumbnails

from interp.widgets.atlas import MODULES as ATLAS
from interp.widgets.feature_page import MODULES as FEATURES
from interp.widgets.head_page import MODULES as HEAD
from interp.widgets.page import embed_json, join_modules
from interp.widgets.report import MODULES, WEB, report_page

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


class Elements(HTMLParser):
    """Every element with its attributes, and the text inside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=False)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.inside.append((self.elements[-1][0], data))


@given(st.dictionaries(TEXT, st.lists(TEXT)))
@example({"</script>": ["<!--", "&lt;", "\u2028\u2029"]})
def test_json_comes_back_and_holds_nothing_that_html_reads(value: dict[str, list[str]]) -> None:
    text = embed_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_what_is_no_character_is_replaced_and_nan_is_refused() -> None:
    assert json.loads(embed_json({"a": "x\ud800y"})) == {"a": "x?y"}
    with pytest.raises(ValueError, match="JSON"):
        embed_json({"a": float("nan")})


def test_modules_join_into_one() -> None:
    parts = [
        "export const A = 1;\nexport function f() { return A; }\n",
        'import { A, f } from "./one.js";\nconst exported = "export const";\nexport class B {}\n',
    ]
    joined = join_modules(parts)
    assert joined == 'const A = 1;\nfunction f() { return A; }\n\nconst exported = "export const";\nclass B {}\n'


def test_every_module_is_part_of_a_page() -> None:
    assert {*MODULES, *ATLAS, *HEAD, *FEATURES} == {path.stem for path in WEB.glob("*.js")}


@pytest.mark.parametrize("modules", [MODULES, ATLAS, HEAD, FEATURES], ids=["report", "atlas", "head", "features"])
def test_the_modules_of_a_page_share_one_name_space_without_clashes(modules: tuple[str, ...]) -> None:
    sources = {name: (WEB / f"{name}.js").read_text(encoding="utf-8") for name in modules}
    declared = [
        n for s in sources.values() for n in re.findall(r"^(?:export )?(?:function|const|let|class) (\w+)", s, re.M)
    ]
    assert len(declared) > 20
    assert sorted(declared) == sorted(set(declared))
    known: set[str] = set()
    for name, source in sources.items():
        wanted = {n.strip() for group in re.findall(r"^import \{([^}]*)\}", source, re.M) for n in group.split(",")}
        assert wanted <= known, f"{name}.js imports what no module before it exports"
        known |= set(re.findall(r"^export (?:function|const|class) (\w+)", source, re.M))
    joined = join_modules(list(sources.values()))
    assert not re.search(r"^\s*(import|export)\b", joined, re.M)


def test_the_page_is_the_template_whatever_the_data_say() -> None:
    plain = Elements(report_page(frame(), manifest(), thumbnails()))
    hostile = Elements(
        report_page(frame(), manifest(NASTY[0], errors=list(NASTY), finished=NASTY[1]), thumbnails(NASTY))
    )
    assert hostile.elements == plain.elements
    assert [tag for tag, _ in plain.elements if tag in ("script", "style", "link", "img", "iframe")] == [
        "style",
        "script",
        "script",
    ]


def test_the_policy_allows_this_script_and_this_style_alone() -> None:
    page = Elements(report_page(frame(), manifest(), thumbnails()))
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    (style,) = (text for tag, text in page.inside if tag == "style")
    (script,) = (text for tag, text in page.inside if tag == "script" and not text.startswith("{"))
    hashes = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )


def test_the_code_names_no_address_and_never_parses_html() -> None:
    for path in (path for path in WEB.rglob("*") if path.is_file()):
        # The name space of drawings is a name: nothing is fetched from there.
        source = path.read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        for word in (
            "http:",
            "https:",
            "//cdn",
            "url(",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ):
            assert word not in source, f"{path.name} holds {word}"

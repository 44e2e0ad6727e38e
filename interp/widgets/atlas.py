"""`atlas.html`: a report of heads as one self-contained page: the layers x heads grid of every score with its control, labels, ablations.

A click on a head locks it and shows its scores; heads that have a page of their own (`interp.widgets.head_page`) are linked from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from interp.batch.files import make_folder, write_file
from interp.heads.labels import LABELS, labelled
from interp.heads.report import load_report
from interp.results import Result
from interp.widgets.colours import sequential
from interp.widgets.page import build_page
from interp.widgets.payload import COLUMNS, base64_of, column
from interp.widgets.report import WEB

ATLAS: Final = "atlas.html"
PAGES: Final = "heads"
CONFIRM: Final = "confirm"
EMBEDDING: Final = "embedding"
MODULES: Final = ("dom", "data", "state", "about", "grid", "multiples", "atlas_head", "atlas_parts", "atlas")
Head = tuple[int, int]

WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "previous_token": ("previous token", "probability", "mean A[i, i−1], random tokens"),
    "duplicate_token": ("duplicate token", "probability", "mean A[i, i−L], repeated random tokens"),
    "induction": ("induction", "probability", "mean A[i, i−(L−1)], repeated random tokens"),
    "previous_token_text": ("previous token, text", "probability", "mean A[i, i−1], natural text"),
    "duplicate_token_text": ("duplicate token, text", "probability", "mean Σ A[i, j], xⱼ = xᵢ, natural text"),
    "induction_text": ("induction, text", "probability", "mean Σ A[i, j], xⱼ₋₁ = xᵢ, natural text"),
    "copying": ("OV copying", "share of logit raise", "max(l(s, s), 0) / Σ max(l(s, t), 0)"),
    "successor": ("successor", "share of pairs", "argmax e(s) W_V W_O W_U = successor of s"),
    "succession_attention": ("succession attention", "probability", "A[wₖ, wₖ₋₁], ordered less random lists"),
    "retrieval": ("retrieval", "share of the span", "|copied ∩ needle| / |needle|"),
    "qrhead": ("query-focused retrieval", "probability", "attention question → gold document, less null query"),
    "sink_rate": ("sink rate at 0.3", "share of sequences", "1[α₁ > 0.3]"),
    "first_token": ("first token", "probability", "α₁ = mean A[i, 1]"),
    "streaming_mass": ("streaming: mass kept", "probability", "mean exp(lse_SW − lse)"),
    "streaming_output": ("streaming: output error", "relative", "mean ‖O − O_SW‖ / ‖O‖"),
    "streaming_gradient": ("streaming: gate gradient", "nats per token", "−Σ ⟨dL/dO, O − O_SW⟩"),
    "patterns": ("sparse pattern recall", "probability", "max over masks of mean exp(lse_M − lse)"),
    "flexprefill": ("FlexPrefill divergence", "√nats", "√JSD(pooled estimate, truth)"),
    "features": ("normalised entropy", "share", "H / ln n"),
}
"""Column of a report -> title, unit and formula in short; the definitions stand in each analysis' own documentation."""


def write_atlas(folder: Path) -> Path:
    """Write `atlas.html` from a report's folder: its table, and the confirmations, the embedding and the head pages that are there.

    Returns:
        The page's path.

    Raises:
        OutputError: the folder holds no finished report, or cannot be written.
        CorruptFileError: one of its files is damaged.
    """
    wide, parts = load_report(folder)
    extra = {
        name: Result.load(folder / name) if (folder / name / "manifest.json").exists() else None
        for name in (CONFIRM, EMBEDDING)
    }
    page = atlas_page(wide, parts, pages=head_pages(folder), confirmed=extra[CONFIRM], placed=extra[EMBEDDING])
    make_folder(folder)
    write_file(folder / ATLAS, lambda temporary: temporary.write_text(page, encoding="utf-8", newline="\n"))
    return folder / ATLAS


def head_pages(folder: Path) -> list[Head]:
    """The heads that have a page in a report's folder."""
    found = [path.stem.split(".") for path in (folder / PAGES).glob("*.html")]
    return sorted((int(x[0]), int(x[1])) for x in found if len(x) == 2 and all(part.isdecimal() for part in x))


def atlas_page(
    wide: Result,
    parts: Mapping[str, Result],
    *,
    pages: Sequence[Head] = (),
    confirmed: Result | None = None,
    placed: Result | None = None,
) -> str:
    """The page of a report.

    Args:
        wide: of `interp.heads.report`.
        parts: its results by name, from which sources are quoted.
        pages: heads that have a page at `heads/LAYER.HEAD.html`.
        confirmed: of `interp.heads.confirm`.
        placed: of `interp.heads.embedding`.
    """
    return build_page(WEB, MODULES, atlas_data(wide, parts, pages=pages, confirmed=confirmed, placed=placed))


def atlas_data(
    wide: Result,
    parts: Mapping[str, Result],
    *,
    pages: Sequence[Head] = (),
    confirmed: Result | None = None,
    placed: Result | None = None,
) -> dict[str, Any]:
    """Everything the page shows, as plain JSON values; arguments as in `atlas_page`."""
    table = wide.table.sort_values(["layer", "head"], ignore_index=True)
    layers, heads = (sorted(int(x) for x in table[name].unique()) for name in ("layer", "head"))
    names = [name for name in WORDS if name in table.columns]
    by_label = labelled(table)
    manifest = wide.manifest
    return {
        "title_text": str(manifest["model"]["name"]),
        "facts": _facts(manifest, layers, heads, table["labels"]),
        "layers": layers,
        "heads": heads,
        "first": names.index("induction") if "induction" in names else 0,
        "statistics": [_statistic(table, name, parts) for name in names],
        "colours": base64_of(sequential()),
        "labels": list(table["labels"]),
        "pages": [f"{layer}.{head}" for layer, head in pages],
        "rules": {
            name: {
                "heads": [f"{a}.{b}" for a, b in by_label.get(name, [])],
                "by_controls": manifest["labels_by_controls"][name],
            }
            for name in LABELS
        },
        "patterns": [str(x) for x in table["pattern"]] if "pattern" in table.columns else None,
        "parts": [{"name": name, **record} for name, record in manifest["parts"].items()],
        "confirmed": None if confirmed is None else _rows(confirmed),
        "placed": None if placed is None else places_of(placed),
        "manifest": plain_values(manifest),
    }


def plain_values(value: Any) -> Any:
    """JSON values with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _facts(manifest: Mapping[str, Any], layers: Sequence[int], heads: Sequence[int], labels: Any) -> list[list[str]]:
    settings, versions = manifest["settings"], manifest["versions"]
    measured = [record for record in manifest["parts"].values() if record["outcome"] != "not measured"]
    minutes = sum(record["seconds"] for record in manifest["parts"].values()) / 60
    return [
        ["layers × heads", f"{len(layers)} × {len(heads)}"],
        ["labelled heads", f"{(labels != '').sum()} of {len(labels)}"],
        ["analyses", f"{len(measured)} of {len(manifest['parts'])} parts"],
        ["longest input", f"{settings['tokens']:,} tokens"],
        ["seed", str(manifest["seed"])],
        ["measured in", f"{minutes:.1f} minutes"],
        ["precision", str(manifest["dtype"])],
        ["versions", ", ".join(f"{name} {str(versions[name]).partition('+')[0]}" for name in ("interp", "torch"))],
    ]


def _statistic(table: Any, name: str, parts: Mapping[str, Result]) -> dict[str, Any]:
    title, unit, formula = WORDS[name]
    part = parts.get(name)
    source = "" if part is None else str(part.manifest.get("source", ""))

    def numbers(of: str) -> np.ndarray:
        if of not in table.columns:
            return np.full(len(table), np.nan)
        return table[of].to_numpy(np.float64)

    means = numbers(name)
    # The range is that of the float32 numbers which the page colours.
    known = means[np.isfinite(means)].astype(np.float32).astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    shown = {"mean": means, "std": numbers(f"{name}_spread"), "control": numbers(f"{name}_control")}
    shown = {key: column(np.where(np.isfinite(x), x, np.nan)) for key, x in shown.items()}
    words = {
        "title": title,
        "unit": unit,
        "formula": formula,
        "undefined": "",
        "cost": "",
        "citation": source,
        "merge": "",
    }
    return {
        "name": name,
        "over": "samples",
        "log": False,
        "low": low,
        "high": high,
        **words,
        **dict.fromkeys(COLUMNS),
        **shown,
    }


def _rows(confirmed: Result) -> list[dict[str, Any]]:
    kept = [
        "label",
        "kind",
        "metric",
        "base",
        "ablated",
        "control_mean",
        "control_std",
        "draws",
        "score",
        "control",
        "spread",
        "heads",
    ]
    table: Any = confirmed.table[kept]
    return [plain_values({str(k): v for k, v in row.items()}) for row in table.to_dict("records")]


def places_of(placed: Result) -> dict[str, Any]:
    """Where `interp.heads.embedding` put every head: coordinates and clusters in the order of layer and head, mean silhouette, control, features."""
    table: Any = placed.table.sort_values(["layer", "head"])
    return {
        "views": {
            view: [table[f"{view}_{n}"].astype(float).round(4).tolist() for n in (1, 2)] for view in ("tsne", "pca")
        },
        "cluster": table["cluster"].astype(int).tolist(),
        "silhouette": float(table["score"].mean()),
        "control": float(table["control"].iloc[0]),
        "features": list(placed.manifest["settings"]["features"]),
    }

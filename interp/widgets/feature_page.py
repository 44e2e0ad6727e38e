"""`index.html`: features of an autoencoder as one self-contained page, and beside it a file of each in Neuronpedia's shape.

The index stands first; every feature's record is a JSON string of its own inside the page's one block of data, decoded when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from interp.batch.files import make_folder, write_file, write_json
from interp.errors import OptionError, OutputError
from interp.saes.dashboard import FeatureSource, feature_index, feature_record
from interp.saes.metrics import density_histogram
from interp.saes.neuronpedia import neuronpedia_json
from interp.widgets.atlas import plain_values
from interp.widgets.page import fill_page, join_modules
from interp.widgets.report import WEB

PAGE: Final = "index.html"
FEATURES: Final = "features"
MODULES: Final = ("dom", "feature", "features")
STYLES: Final = ("page", "feature")


def write_dashboard(
    source: FeatureSource,
    features: Sequence[int],
    folder: Path,
    *,
    text: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `index.html`, and `features/NUMBER.json` for each feature.

    Args:
        source: of `interp.saes.dashboard.feature_source`.
        features: which, in the order of the index.
        folder: new, or a dashboard's, whose files are replaced.
        text: where the contexts come from, for the manifest.
        progress: called with (features done, features).

    Returns:
        The page's path.

    Raises:
        OptionError: no features, or one that does not exist.
        OutputError: the folder holds something else, or cannot be written.
    """
    if not features or len(set(features)) < len(features):
        raise OptionError(f"features: wanted at least one, each once; got {list(features)}")
    if folder.exists() and any(folder.iterdir()) and not (folder / PAGE).exists():
        raise OutputError(f"{folder.name} holds something that is not a dashboard; choose a new folder")
    make_folder(folder / FEATURES)
    name = str(source.model.manifest()["model"]["name"])
    records = []
    for done, feature in enumerate(features, 1):
        record = feature_record(source, feature)
        records.append(record)
        shaped = neuronpedia_json(record, model=name, source=f"{source.layer}-att-interp")
        write_json(folder / FEATURES / f"{feature}.json", shaped)
        if progress is not None:
            progress(done, len(features))
    page = feature_page(source, records, text=text)
    write_file(folder / PAGE, lambda temporary: temporary.write_text(page, encoding="utf-8", newline="\n"))
    return folder / PAGE


def feature_page(
    source: FeatureSource, records: Sequence[Mapping[str, Any]], *, text: Mapping[str, Any] | None = None
) -> str:
    """The page of some records; arguments as `write_dashboard`."""
    script = join_modules([(WEB / f"{module}.js").read_text(encoding="utf-8") for module in MODULES])
    style = "\n".join((WEB / f"{sheet}.css").read_text(encoding="utf-8") for sheet in STYLES)
    template = (WEB / "page.html").read_text(encoding="utf-8")
    return fill_page(template, style=style, script=script, data=page_data(source, records, text=text))


def page_data(
    source: FeatureSource, records: Sequence[Mapping[str, Any]], *, text: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything the page shows, as plain JSON values; arguments as `write_dashboard`."""
    config, fired, manifest = source.sae.config, source.activity, source.model.manifest()
    edges, counts = density_histogram(fired.density)
    return {
        "title_text": str(manifest["model"]["name"]),
        "layer": source.layer,
        "features": config.d_sae,
        "dead": int((fired.density == 0).sum()),
        "density": {"edges": [round(float(e), 2) for e in edges], "counts": [int(c) for c in counts]},
        "facts": [
            ["layer", str(source.layer)],
            ["features", f"{config.d_sae:,}, {config.architecture}"],
            ["reads", f"{config.d_in} numbers, {source.model.heads} heads"],
            ["text", f"{fired.tokens:,} tokens of {len(fired.contexts):,} contexts"],
            ["features per token", f"{float(fired.density.sum()):.1f}"],
        ],
        "index": feature_index(source, [int(r["feature"]) for r in records]),
        "records": {str(r["feature"]): json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in records},
        "manifest": plain_values(
            {
                **manifest,
                "layer": source.layer,
                "text": dict(text or {}),
                "seed": source.seed,
                "autoencoder": dict(config.metadata),
            }
        ),
    }

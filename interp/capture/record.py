"""`LayerRecord` and `Recorder`: what is measured and kept of each layer while a model runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from interp.capture.call import AttentionCall
from interp.capture.measure import MaskCounts, Measurement, wanted
from interp.capture.sites import Kind, Site
from interp.errors import CaptureError
from interp.stats.declaration import Statistic
from interp.stats.labels import TokenLabels
from interp_kernels import Attended, Collect, Edit, Mask
from interp_kernels.dispatch import BackendChoice

Keep = Literal["qk", "none"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """One layer's capture.

    Attributes:
        values: statistics, float32 [B, H, Nq], [B, H, Nk] or [B, H].
        lse: row log-sum-exp [B, H, Nq].
        q, k: queries [B, H, Nq, D] and keys [B, Hkv, Nk, D], None unless kept.
        mask, scale, softcap, edit: as the kernel got them.
        backend: which backend ran.
    """

    values: dict[str, Tensor]
    lse: Tensor
    q: Tensor | None
    k: Tensor | None
    mask: Mask
    scale: float | None
    softcap: float | None
    edit: Edit | None
    backend: str


@dataclass(kw_only=True, eq=False)
class Recorder:
    """Listens to one forward pass and keeps a record of every wanted layer.

    Attributes:
        sites: candidate attention modules by `id`.
        statistics: what to measure.
        axes: labels of the query and the key axis for each kind of attention the model has; None for an axis without tokens (image
            patches, audio frames), which is labelled by position once its length is known.
        layers: layer numbers wanted, None for all.
        keep: whether q and k are kept, for attention maps.
        backend: which kernel backend to ask for.
        records: what was captured, in the order of the calls.
        called: every site that attended, wanted or not.
    """

    sites: Mapping[int, Site]
    statistics: tuple[Statistic, ...]
    axes: Mapping[Kind, tuple[TokenLabels | None, TokenLabels | None]]
    layers: frozenset[int] | None
    keep: Keep
    backend: BackendChoice
    records: dict[Site, LayerRecord] = field(default_factory=dict)
    called: list[Site] = field(default_factory=list)
    _measurements: dict[tuple[Kind, torch.device], tuple[Measurement, Collect]] = field(default_factory=dict)
    _counts: dict[tuple[Kind, torch.device, int, int, int], tuple[Mask, MaskCounts]] = field(default_factory=dict)

    def wish(self, call: AttentionCall) -> Collect | None:
        """What to collect of a call; nothing if its layer is not wanted."""
        if not self._wants(call.site):
            return None
        measurement, collect = self._measurement(call)
        sizes = (measurement.queries.ids.shape[1], measurement.keys.ids.shape[1])
        if sizes != (call.queries, call.keys):
            raise CaptureError(
                f"{call.site.kind} attention of layer {call.site.layer} has {call.queries} queries and {call.keys} keys, "
                f"but the input has {sizes[0]} and {sizes[1]} tokens; capture needs the whole input in one pass, without a cache"
            )
        return collect

    def hear(self, call: AttentionCall, attended: Attended) -> None:
        """Measure and keep one layer."""
        site = call.site
        self.called.append(site)
        if not self._wants(site):
            return
        if site in self.records:
            raise CaptureError(
                f"{site.kind} attention of layer {site.layer} ran twice in one pass; interp cannot tell the two apart (shared layers?)"
            )
        measurement, _ = self._measurement(call)
        values = measurement.values(call, attended, self._mask_counts(call, measurement))
        kept = self.keep == "qk"
        self.records[site] = LayerRecord(
            values=values,
            lse=attended.lse.detach(),
            q=_own(call.q) if kept else None,
            k=_own(call.k) if kept else None,
            mask=call.mask,
            scale=call.scale,
            softcap=call.softcap,
            edit=call.edit,
            backend=attended.backend,
        )

    def _wants(self, site: Site) -> bool:
        return self.layers is None or site.layer in self.layers

    def _measurement(self, call: AttentionCall) -> tuple[Measurement, Collect]:
        kind, q, k = call.site.kind, call.q, call.k
        place = (kind, q.device)  # a model may be spread over several devices
        if place not in self._measurements:
            queries, keys = self.axes[kind]
            tokens = queries is not None and keys is not None
            queries = queries.to(q.device) if queries else TokenLabels.blank(q.shape[0], q.shape[2], q.device)
            keys = keys.to(q.device) if keys else TokenLabels.blank(k.shape[0], k.shape[2], q.device)
            fitting = wanted(
                self.statistics, keys=keys, tokens=tokens, causal=call.mask.is_causal, equal_axes=kind != "cross"
            )
            measurement = Measurement(statistics=fitting, queries=queries, keys=keys)
            self._measurements[place] = (measurement, measurement.collect())
        return self._measurements[place]

    def _mask_counts(self, call: AttentionCall, measurement: Measurement) -> MaskCounts:
        key = (call.site.kind, call.q.device, id(call.mask), call.queries, call.keys)
        if key not in self._counts:
            counts = MaskCounts.of(call, measurement.queries, received=measurement.needs.received)
            # The mask is kept beside its counts: an id is only good while the object lives.
            self._counts[key] = (call.mask, counts)
        return self._counts[key][1]


def _own(x: Tensor) -> Tensor:
    """The tensor in memory of its own: a view of a joint projection would keep the whole projection alive."""
    x = x.detach()
    return x if x.untyped_storage().nbytes() == x.numel() * x.element_size() else x.clone()

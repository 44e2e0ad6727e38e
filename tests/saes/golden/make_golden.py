"""Write the golden folders with SAELens itself: see README.md beside this file for the environment that it runs in."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HEADS, SIZE, FEATURES, TOKENS = 3, 5, 23, 7
HERE = Path(__file__).parent


def main() -> None:
    from sae_lens import (
        SAE,
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata

    def common(**more: object) -> dict:
        metadata = SAEMetadata(model_name="tiny", hook_name="blocks.1.attn.hook_z", hook_head_index=None)
        return {"d_in": HEADS * SIZE, "d_sae": FEATURES, "reshape_activations": "hook_z", "metadata": metadata, **more}

    def drawn(sae: torch.nn.Module, seed: int) -> torch.nn.Module:
        """Every weight drawn, so that each of them matters."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sae.named_parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(noise.abs() if name == "threshold" else 0.5 * noise)
        return sae

    def as_inference(sae: torch.nn.Module) -> SAE:
        """What a training SAE becomes on disk."""
        with tempfile.TemporaryDirectory() as folder:
            sae.save_inference_model(folder)
            return SAE.load_from_disk(folder)

    def batchtopk(sae: torch.nn.Module) -> SAE:
        sae.topk_threshold = torch.tensor(1.25, dtype=torch.double)
        return as_inference(sae)

    widths = [5, 11, FEATURES]
    saes = {
        "standard": drawn(StandardSAE(StandardSAEConfig(**common())), 1),
        "standard_flat": drawn(StandardSAE(StandardSAEConfig(**common(reshape_activations="none", apply_b_dec_to_input=False))), 2),
        "standard_layer_norm": drawn(StandardSAE(StandardSAEConfig(**common(normalize_activations="layer_norm"))), 3),
        "standard_rescaled": drawn(StandardSAE(StandardSAEConfig(**common(normalize_activations="constant_norm_rescale"))), 4),
        "gated": drawn(GatedSAE(GatedSAEConfig(**common())), 5),
        "topk": drawn(TopKSAE(TopKSAEConfig(**common(k=4))), 6),
        "topk_by_norm": drawn(TopKSAE(TopKSAEConfig(**common(k=4, rescale_acts_by_decoder_norm=True))), 7),
        "topk_trained": as_inference(drawn(TopKTrainingSAE(TopKTrainingSAEConfig(**common(k=4))), 8)),
        "jumprelu": drawn(JumpReLUSAE(JumpReLUSAEConfig(**common())), 9),
        "batchtopk": batchtopk(drawn(BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common(k=4))), 10)),
        "matryoshka": batchtopk(
            drawn(MatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAEConfig(**common(k=4, matryoshka_widths=widths))), 11)
        ),
    }  # fmt: skip
    z = torch.randn(2, TOKENS, HEADS, SIZE, generator=torch.Generator().manual_seed(0))
    for name, sae in saes.items():
        given = z if sae.cfg.reshape_activations == "hook_z" else z.flatten(-2)
        with torch.no_grad():
            features = sae.encode(given)
            out = sae.decode(features)
        sae.save_model(HERE / name)
        save_file({"z": given, "features": features, "out": out.contiguous()}, HERE / name / "expected.safetensors")
        print(
            name,
            json.loads((HERE / name / "cfg.json").read_text())["architecture"],
            f"L0 {(features > 0).sum(-1).float().mean():.2f}",
        )


if __name__ == "__main__":
    main()

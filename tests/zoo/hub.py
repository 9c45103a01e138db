"""Networks of timm and transformers by tiny configurations, where these are installed."""

from importlib.util import find_spec

from .kinds import CLASSES, Expected, Group, Net, Truth, real, tokens

GROUP = Group("Networks of timm and transformers")


def _timm(name, **options):
    def make():
        import timm

        return timm.create_model(name, num_classes=CLASSES, **options)

    return make


def _hugging(name, **options):
    def make():
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **options)
        config._attn_implementation = "eager"
        model = getattr(transformers, f"{name}ForSequenceClassification")(config)
        return Net(lambda m, x: m.model(x).logits, model=model.train())

    return make


_SMALL = {
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_LLAMA = {
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 12, "max_position_embeddings": 16, "pad_token_id": 0,
}  # fmt: skip

if find_spec("timm"):
    for title, name, size, options in (
        (
            "ViT",
            "vit_tiny_patch16_224",
            8,
            {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2},
        ),
        (
            "DeiT, distilled",
            "deit_tiny_patch16_224",
            8,
            {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
        ),
        ("ResNet", "resnet10t", 32, {}),
        ("NFNet (scaled weight standardization)", "nf_regnet_b0", 32, {}),
        ("GhostNet", "ghostnet_050", 32, {}),
        (
            "Swin",
            "swin_tiny_patch4_window7_224",
            16,
            {
                "img_size": 16,
                "patch_size": 2,
                "window_size": 4,
                "embed_dim": 8,
                "depths": (1, 1),
                "num_heads": (2, 2),
                "drop_path_rate": 0.0,
            },
        ),
        (
            "CaiT",
            "cait_xxs24_224",
            8,
            {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
        ),
    ):
        more = {"smooth": title != "ResNet"}
        if title == "GhostNet":
            more = {
                "truth": Truth.differences,
                "expected": Expected.forward,
                "expected_two": Expected.differences,
            }
        GROUP.add(
            f"timm: {title}",
            _timm(name, **options),
            real(3, size, size),
            heavy=True,
            traces=None,
            **more,
        )
    GROUP.add(
        "timm: ViT with drop path",
        _timm(
            "vit_tiny_patch16_224",
            img_size=8,
            patch_size=4,
            embed_dim=8,
            depth=2,
            num_heads=2,
            drop_path_rate=0.5,
        ),
        real(3, 8, 8),
        heavy=True,
        traces=None,
        truth=Truth.own,
    )

if find_spec("transformers"):
    for title, name, options in (
        ("BERT", "Bert", _SMALL),
        ("RoBERTa", "Roberta", {**_SMALL, "max_position_embeddings": 20}),
        (
            "ELECTRA",
            "Electra",
            {**_SMALL, "embedding_size": 8, "summary_last_dropout": 0.0, "classifier_dropout": 0.0},
        ),
        (
            "DistilBERT",
            "DistilBert",
            {
                "vocab_size": 11,
                "dim": 8,
                "n_layers": 1,
                "n_heads": 2,
                "hidden_dim": 12,
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "seq_classif_dropout": 0.0,
                "max_position_embeddings": 16,
            },
        ),
        (
            "GPT-2",
            "GPT2",
            {
                "vocab_size": 11,
                "n_embd": 8,
                "n_layer": 2,
                "n_head": 2,
                "n_positions": 16,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "pad_token_id": 0,
            },
        ),
        ("Llama", "Llama", _LLAMA),
        ("Mistral", "Mistral", _LLAMA),
        ("Gemma", "Gemma", {**_LLAMA, "head_dim": 4}),
        ("Qwen2", "Qwen2", _LLAMA),
        (
            "GPT-NeoX",
            "GPTNeoX",
            {
                "vocab_size": 11,
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 12,
                "max_position_embeddings": 16,
                "pad_token_id": 0,
            },
        ),
    ):
        # Their norms and rotations are computed in single precision, whatever the weights have.
        rough = (
            {"truth": Truth.graph, "smooth": False, "tolerance": 1e-7}
            if "max_position_embeddings" in options
            and "hidden_dropout_prob" not in options
            and name not in ("DistilBert",)
            else {}
        )
        GROUP.add(
            f"transformers: {title}",
            _hugging(name, **options),
            tokens(11, 5),
            heavy=True,
            traces=None,
            **rough,
        )
    GROUP.add(
        "transformers: BERT with dropout",
        _hugging(
            "Bert", **{**_SMALL, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
        ),
        tokens(11, 5),
        heavy=True,
        traces=None,
        truth=Truth.own,
    )

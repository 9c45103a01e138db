"""Networks of timm and transformers by tiny configurations, tested where these are installed."""

from ..kind import CLASSES, Group, Truth, real, tokens

GROUP = Group("Networks of timm and transformers")

_VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
_SWIN = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8}
_BERT = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_DISTIL = {
    "vocab_size": 11,
    "dim": 8,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 12,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}
_GPT2 = {
    "vocab_size": 11,
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEOX = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}
_LLAMA = {**_NEOX, "num_hidden_layers": 2, "num_key_value_heads": 1}
# Their norms and rotations are computed in single precision, whatever the weights have.
_ROUGH = {"truth": Truth.graph, "smooth": False, "tolerance": 1e-6}


def _timm(name, options):
    def make():
        import timm

        return timm.create_model(name, num_classes=CLASSES, **options)

    return make


def _hugging(name, options):
    def make():
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **options)
        config._attn_implementation = "eager"
        return getattr(transformers, f"{name}ForSequenceClassification")(config).train()

    return make


def _add(library, title, make, inputs, **options):
    GROUP.add(
        f"{library}: {title}", make, inputs, heavy=True, traces=None, needs=library, **options
    )


for title, name, size, options, more in (
    ("ViT", "vit_tiny_patch16_224", 8, _VIT, {}),
    ("DeiT", "deit_tiny_patch16_224", 8, _VIT, {}),
    ("CaiT", "cait_xxs24_224", 8, {**_VIT, "depth": 1}, {}),
    ("ResNet", "resnet10t", 32, {}, {"truth": Truth.graph, "smooth": False}),
    ("NFNet (scaled weight standardization)", "nf_regnet_b0", 32, {}, {}),
    (
        *("Swin", "swin_tiny_patch4_window7_224", 16),
        {**_SWIN, "depths": (1, 1), "num_heads": (2, 2), "drop_path_rate": 0.0},
        {},
    ),
    (
        *("ViT with drop path", "vit_tiny_patch16_224", 8, {**_VIT, "drop_path_rate": 0.5}),
        {"truth": Truth.own},
    ),
):
    _add("timm", title, _timm(name, options), real(3, size, size), **more)

for title, name, options, more in (
    ("BERT", "Bert", _BERT, {}),
    ("RoBERTa", "Roberta", _BERT, {}),
    ("ELECTRA", "Electra", {**_BERT, "embedding_size": 8, "summary_last_dropout": 0.0}, {}),
    ("DistilBERT", "DistilBert", _DISTIL, {}),
    ("GPT-2", "GPT2", _GPT2, {}),
    ("Llama", "Llama", _LLAMA, _ROUGH),
    ("Mistral", "Mistral", _LLAMA, _ROUGH),
    ("Gemma", "Gemma", {**_LLAMA, "head_dim": 4}, _ROUGH),
    ("Qwen2", "Qwen2", _LLAMA, _ROUGH),
    ("GPT-NeoX", "GPTNeoX", _NEOX, _ROUGH),
    ("BERT with dropout", "Bert", {**_BERT, "hidden_dropout_prob": 0.2}, {"truth": Truth.own}),
):
    _add("transformers", title, _hugging(name, options), tokens(11, 5), **more)

"""Networks of timm and transformers by tiny configurations, tested where these are installed."""

import torch

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
_EXPERTS = {"num_experts_per_tok": 2, "experts_implementation": "eager"}
_T5 = {
    "vocab_size": 11,
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 12,
    "num_layers": 1,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_BART = {
    "vocab_size": 11,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 20,
    "dropout": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_AUDIO = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "conv_dim": (6, 6),
    "conv_stride": (3, 2),
    "conv_kernel": (5, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 6,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    **dict.fromkeys(
        ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout"), 0.0
    ),
}
_IMAGES = {
    **{name: value for name, value in _BERT.items() if name != "vocab_size"},
    "num_hidden_layers": 1,
    "image_size": 8,
    "patch_size": 4,
}
# Their norms and rotations are computed in single precision, whatever the weights have.
_ROUGH = {"truth": Truth.graph, "smooth": False, "tolerance": 1e-6}
_CLIFFS = {"truth": Truth.graph, "smooth": False}


def _timm(name, options):
    def make():
        import timm

        return timm.create_model(name, num_classes=CLASSES, **options)

    return make


def _nfnet():
    from timm.models.nfnet import NfCfg, NormFreeNet

    config = NfCfg(depths=(1, 1), channels=(8, 8), stem_type="3x3", group_size=4, num_features=16)
    return NormFreeNet(config, num_classes=CLASSES)


def _hugging(name, options, head="SequenceClassification"):
    def make():
        import transformers

        transformers.logging.set_verbosity_error()
        config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **options)
        config._attn_implementation = "eager"
        return getattr(transformers, f"{name}For{head}")(config).train()

    return make


def _padded(generator):
    """Tokens and a mask, by name; the rows differ in length."""
    mask = (torch.arange(5) < torch.tensor([[5], [3], [5], [2]])).long()
    return {"input_ids": tokens(11, 5)(generator).clamp(min=1) * mask, "attention_mask": mask}


def _ended(generator):
    """Tokens that end with the mark of the end."""
    found = tokens(11, 5)(generator).clamp(min=2)
    found[:, -1] = 1
    return found


def _add(library, title, make, inputs, **options):
    GROUP.add(
        f"{library}: {title}", make, inputs, heavy=True, traces=None, needs=library, **options
    )


for title, name, size, options, more in (
    ("ViT", "vit_tiny_patch16_224", 8, _VIT, {}),
    ("DeiT", "deit_tiny_patch16_224", 8, _VIT, {}),
    ("DeiT III (scaled layers)", "deit3_small_patch16_224", 8, _VIT, {}),
    ("BEiT (relative positions)", "beit_base_patch16_224", 8, _VIT, {}),
    ("EVA-02 (rotary positions, SwiGLU)", "eva02_tiny_patch14_224", 8, {**_VIT, "depth": 1}, {}),
    ("CaiT", "cait_xxs24_224", 8, {**_VIT, "depth": 1}, {}),
    ("ResNet", "resnet10t", 32, {"channels": (8, 8, 8, 8), "stem_width": 8}, _CLIFFS),
    ("DenseNet", "densenet121", 32, {"growth_rate": 4, "block_config": (1, 1)}, _CLIFFS),
    ("ConvNeXt", "convnext_atto", 32, {"depths": (1,) * 4, "dims": (8,) * 4}, {}),
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
_add("timm", "NFNet (scaled weight standardization)", _nfnet, real(3, 16, 16))

for title, name, options, more in (
    ("BERT", "Bert", _BERT, {}),
    ("BERT, padded rows with a mask", "Bert", _BERT, {"inputs": _padded}),
    ("RoBERTa", "Roberta", _BERT, {}),
    ("ELECTRA", "Electra", {**_BERT, "embedding_size": 8, "summary_last_dropout": 0.0}, {}),
    ("ALBERT", "Albert", {**_BERT, "embedding_size": 6, "classifier_dropout_prob": 0.0}, {}),
    (
        *("DeBERTa", "DebertaV2"),
        {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        {},
    ),
    ("DistilBERT", "DistilBert", _DISTIL, {}),
    ("GPT-2", "GPT2", _GPT2, {}),
    ("Llama", "Llama", _LLAMA, _ROUGH),
    ("Mistral", "Mistral", _LLAMA, _ROUGH),
    ("Mixtral (experts)", "Mixtral", {**_LLAMA, **_EXPERTS, "num_local_experts": 3}, _ROUGH),
    ("Gemma", "Gemma", {**_LLAMA, "head_dim": 4}, _ROUGH),
    ("Qwen2", "Qwen2", _LLAMA, _ROUGH),
    ("GPT-NeoX", "GPTNeoX", _NEOX, _ROUGH),
    ("T5", "T5", _T5, {**_ROUGH, "inputs": _ended}),
    ("BART", "Bart", _BART, {"inputs": _ended}),
    ("HuBERT", "Hubert", _AUDIO, {"inputs": real(60)}),
    ("Wav2Vec2", "Wav2Vec2", _AUDIO, {"inputs": real(60)}),
    ("BERT with dropout", "Bert", {**_BERT, "hidden_dropout_prob": 0.2}, {"truth": Truth.own}),
):
    given = {"inputs": tokens(11, 5), **more}
    _add("transformers", title, _hugging(name, options), **given)
_add("transformers", "ViT", _hugging("ViT", _IMAGES, "ImageClassification"), real(3, 8, 8))

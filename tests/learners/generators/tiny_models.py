"""Tiny configurations of transformers' classifiers, and their kinds of tokenizer.

``ARCHITECTURES`` maps a name to its configuration class, the settings that make it tiny, and the
kind of tokenizer that its library gives it. Everything else about a model is its class's default.
"""

import transformers

WIDE = 16  # numbers of a token's vector
POSITIONS = 128
BERT = {
    "hidden_size": WIDE, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": POSITIONS, "initializer_range": 0.4,
}  # fmt: skip
ROBERTA = {**BERT, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "bos_token_id": 0,
           "eos_token_id": 2, "type_vocab_size": 1}  # fmt: skip
BART = {
    "d_model": WIDE, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "max_position_embeddings": POSITIONS, "init_std": 0.4, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_embd": WIDE, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS,
        "initializer_range": 0.4, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2}  # fmt: skip
LLAMA = {
    "hidden_size": WIDE, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": POSITIONS,
    "initializer_range": 0.4, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    "head_dim": 8,
}  # fmt: skip
FALCON = {name: value for name, value in LLAMA.items() if name != "head_dim"}

ROBERTA_BASE = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
                "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip

# name: (configuration class, settings, tokenizer)
ARCHITECTURES = {
    "bert": ("BertConfig", BERT, "wordpiece"),
    "roberta_base": ("RobertaConfig", ROBERTA_BASE, "bpe"),  # in full size, for the benchmarks
    "bert_cased": ("BertConfig", BERT, "wordpiece-cased"),
    "roberta": ("RobertaConfig", ROBERTA, "bpe"),
    "distilbert": (
        "DistilBertConfig",
        {"dim": WIDE, "hidden_dim": 32, "n_layers": 2, "n_heads": 2,
         "max_position_embeddings": POSITIONS, "initializer_range": 0.4},
        "wordpiece",
    ),
    "albert": ("AlbertConfig", {**BERT, "embedding_size": 8, "num_hidden_groups": 1}, "albert"),
    "electra": ("ElectraConfig", {**BERT, "embedding_size": 8}, "wordpiece"),
    "deberta_v2": (
        "DebertaV2Config",
        {**BERT, "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm",
         "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
         "type_vocab_size": 0, "pooler_hidden_size": WIDE, "max_relative_positions": -1},
        "deberta-v2",
    ),
    "deberta": (
        "DebertaConfig",
        {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
         "position_biased_input": False, "type_vocab_size": 0, "pooler_hidden_size": WIDE,
         "max_relative_positions": -1},
        "bpe-bert",
    ),
    "xlm_roberta": ("XLMRobertaConfig", ROBERTA, "xlm-roberta"),
    "xlm_roberta_xl": ("XLMRobertaXLConfig", ROBERTA, "xlm-roberta"),
    "camembert": ("CamembertConfig", ROBERTA, "camembert"),
    "xlnet": (
        "XLNetConfig",
        {"d_model": WIDE, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.4},
        "xlnet",
    ),
    "mobilebert": (
        "MobileBertConfig",
        {**BERT, "embedding_size": 8, "intra_bottleneck_size": 8, "num_feedforward_networks": 2},
        "wordpiece",
    ),
    "mpnet": ("MPNetConfig", ROBERTA, "mpnet"),
    "longformer": ("LongformerConfig", {**ROBERTA, "attention_window": [8, 8]}, "bpe"),
    "big_bird": ("BigBirdConfig", {**BERT, "attention_type": "original_full", "pad_token_id": 0},
                 "albert"),
    "funnel": (
        "FunnelConfig",
        {"d_model": WIDE, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1],
         "num_decoder_layers": 1, "initializer_range": 0.4},
        "funnel",
    ),
    "convbert": ("ConvBertConfig", {**BERT, "embedding_size": 8, "conv_kernel_size": 3},
                 "wordpiece"),
    "squeezebert": ("SqueezeBertConfig", {**BERT, "embedding_size": WIDE}, "wordpiece"),
    "layoutlm": ("LayoutLMConfig", {**BERT, "max_2d_position_embeddings": 64}, "wordpiece"),
    "nystromformer": ("NystromformerConfig", {**BERT, "segment_means_seq_len": 8, "num_landmarks": 8}, "albert"),
    "fnet": ("FNetConfig", BERT, "albert"),
    "rembert": ("RemBertConfig", {**BERT, "input_embedding_size": 8, "output_embedding_size": 8},
                "albert"),
    "roformer": ("RoFormerConfig", BERT, "wordpiece"),
    "megatron_bert": ("MegatronBertConfig", BERT, "wordpiece"),
    "ernie": ("ErnieConfig", BERT, "wordpiece"),
    "ibert": ("IBertConfig", {**ROBERTA, "quant_mode": False}, "bpe"),
    "data2vec_text": ("Data2VecTextConfig", ROBERTA, "bpe"),
    "roberta_prelayernorm": ("RobertaPreLayerNormConfig", ROBERTA, "bpe"),
    "luke": ("LukeConfig", {**ROBERTA, "entity_vocab_size": 8, "entity_emb_size": 8}, "bpe"),
    "xmod": ("XmodConfig", {**ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"},
             "xlm-roberta"),
    "lilt": ("LiltConfig", {**ROBERTA, "hidden_size": 24, "max_2d_position_embeddings": 64}, "bpe"),
    "markuplm": ("MarkupLMConfig", {**ROBERTA, "max_tree_id_unit_embeddings": 8,
                                    "max_xpath_tag_unit_embeddings": 8,
                                    "max_xpath_subs_unit_embeddings": 8, "xpath_unit_hidden_size": 4,
                                    "tag_pad_id": 7, "subs_pad_id": 7}, "bpe"),
    "mra": ("MraConfig", {**BERT, "max_position_embeddings": 128}, "bpe-bert"),
    "yoso": ("YosoConfig", {**BERT, "max_position_embeddings": 128}, "albert"),
    "roc_bert": ("RoCBertConfig", {**BERT, "enable_pronunciation": False, "enable_shape": False},
                 "wordpiece"),
    "modernbert": (
        "ModernBertConfig",
        {**BERT, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
         "eos_token_id": 3, "global_attn_every_n_layers": 2, "local_attention": 16,
         "cls_token_id": 2},
        "bpe-bert",
    ),
    "nomic_bert": ("NomicBertConfig", BERT, "wordpiece"),
    "eurobert": ("EuroBertConfig", {**LLAMA, "pad_token_id": 0}, "bpe-bert"),
    "esm": ("EsmConfig", {**ROBERTA, "pad_token_id": 1, "mask_token_id": 4}, "bpe"),
    "canine": ("CanineConfig", {**BERT, "max_position_embeddings": 2048, "num_hash_buckets": 256,
                                "local_transformer_stride": 16, "type_vocab_size": 16}, "canine"),
    "bart": ("BartConfig", BART, "bpe"),
    "mbart": ("MBartConfig", BART, "xlm-roberta"),
    "mvp": ("MvpConfig", BART, "bpe"),
    "plbart": ("PLBartConfig", BART, "xlm-roberta"),
    "bigbird_pegasus": ("BigBirdPegasusConfig", {**BART, "attention_type": "original_full"},
                        "xlm-roberta"),
    "t5": ("T5Config", {"d_model": WIDE, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
                        "num_decoder_layers": 1, "decoder_start_token_id": 0}, "t5"),
    "mt5": ("MT5Config", {"d_model": WIDE, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
                          "num_decoder_layers": 1, "decoder_start_token_id": 0}, "t5"),
    "umt5": ("UMT5Config", {"d_model": WIDE, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
                            "num_decoder_layers": 1, "decoder_start_token_id": 0}, "t5"),
    "gpt2": ("GPT2Config", GPT2, "bpe"),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": WIDE, "num_layers": 2, "num_heads": 2, "attention_types":
         [[["global", "local"], 1]], "max_position_embeddings": POSITIONS, "window_size": 16,
         "initializer_range": 0.4, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        "bpe",
    ),
    "gpt_neox": ("GPTNeoXConfig", {**LLAMA}, "bpe"),
    "gptj": ("GPTJConfig", {**GPT2, "rotary_dim": 4}, "bpe"),
    "opt": ("OPTConfig", {"hidden_size": WIDE, "num_hidden_layers": 2, "num_attention_heads": 2,
                          "ffn_dim": 32, "max_position_embeddings": POSITIONS, "init_std": 0.4,
                          "word_embed_proj_dim": WIDE, "pad_token_id": 1, "bos_token_id": 0,
                          "eos_token_id": 2}, "bpe"),
    "bloom": ("BloomConfig", {"hidden_size": WIDE, "n_layer": 2, "n_head": 2,
                              "initializer_range": 0.4, "pad_token_id": 1, "bos_token_id": 0,
                              "eos_token_id": 2}, "bpe"),
    "biogpt": ("BioGptConfig", {**BERT, "pad_token_id": 1}, "bpe"),
    "openai_gpt": ("OpenAIGPTConfig", GPT2, "bpe"),
    "ctrl": ("CTRLConfig", {**GPT2, "dff": 32}, "bpe"),
    "llama": ("LlamaConfig", LLAMA, "bpe"),
    "mistral": ("MistralConfig", LLAMA, "bpe"),
    "qwen2": ("Qwen2Config", LLAMA, "bpe"),
    "qwen3": ("Qwen3Config", LLAMA, "bpe"),
    "gemma": ("GemmaConfig", LLAMA, "bpe"),
    "gemma2": ("Gemma2Config", LLAMA, "bpe"),
    "phi": ("PhiConfig", LLAMA, "bpe"),
    "phi3": ("Phi3Config", LLAMA, "bpe"),
    "stablelm": ("StableLmConfig", LLAMA, "bpe"),
    "falcon": ("FalconConfig", FALCON, "bpe"),
    "olmo": ("OlmoConfig", LLAMA, "bpe"),
    "starcoder2": ("Starcoder2Config", LLAMA, "bpe"),
    "xlm": ("XLMConfig", {"emb_dim": WIDE, "n_layers": 2, "n_heads": 2, "n_langs": 1,
                          "max_position_embeddings": POSITIONS, "init_std": 0.4,
                          "embed_init_std": 0.4, "pad_index": 2}, "xlm"),
    "flaubert": ("FlaubertConfig", {"emb_dim": WIDE, "n_layers": 2, "n_heads": 2, "n_langs": 1,
                                    "max_position_embeddings": POSITIONS, "init_std": 0.4,
                                    "embed_init_std": 0.4, "pad_index": 2}, "flaubert"),
}  # fmt: skip

# Of decoders since 2023; each takes those that its configuration has.
NEWER = {
    **LLAMA, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "num_local_experts": 4, "num_experts": 4, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "shared_expert_intermediate_size": 16,
    "sliding_window": 16,
}  # fmt: skip
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
          "v_head_dim": 8}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
SEEING = {"hidden_size": WIDE, "intermediate_size": 32, "num_hidden_layers": 1, "depth": 1,
          "num_attention_heads": 2, "num_heads": 2, "image_size": 32, "patch_size": 16,
          "out_hidden_size": WIDE}  # fmt: skip
READING = {**NEWER, "query_pre_attn_scalar": 8}
ROTARY = {"rope_type": "default", "rope_theta": 10000.0}


def newer(config_class, tokenizer="bpe", **own):
    """An entry of ``ARCHITECTURES`` from the numbers of ``NEWER`` and its own."""
    cls = getattr(transformers, config_class)
    known = cls()
    fixed = {name for name in NEWER if isinstance(getattr(cls, name, None), property)}
    fitting = {
        name: value for name, value in NEWER.items() if hasattr(known, name) and name not in fixed
    }
    return config_class, {**fitting, **own}, tokenizer


ARCHITECTURES.update({
    "arcee": newer("ArceeConfig"),
    "axk1": newer("AXK1Config", **{**LATENT, "head_dim": 4}),
    "axk2": newer("AXK2Config", **LATENT),
    "cohere_compass_text": newer("CohereCompassTextConfig", layer_types=["full_attention"] * 2,
                                 rope_parameters={"full_attention": ROTARY}),
    "deepseek_v2": newer("DeepseekV2Config", **LATENT),
    "deepseek_v3": newer("DeepseekV3Config", **{**LATENT, "head_dim": 4}),
    "diffllama": newer("DiffLlamaConfig"),
    "doge": newer("DogeConfig"),
    "esmc": newer("EsmcConfig"),
    "exaone4": newer("Exaone4Config"),
    "gemma3": newer("Gemma3Config", text_config=READING, vision_config=SEEING),
    "gemma3_text": newer("Gemma3TextConfig"),
    "glm": newer("GlmConfig"),
    "glm4": newer("Glm4Config"),
    "gpt_bigcode": newer("GPTBigCodeConfig", **GPT2),
    "gpt_oss": newer("GptOssConfig"),
    "gte": newer("GteConfig"),
    "helium": newer("HeliumConfig"),
    "hunyuan_v1_dense": newer("HunYuanDenseV1Config"),
    "hunyuan_v1_moe": newer("HunYuanMoEV1Config"),
    "jamba": newer("JambaConfig", use_mamba_kernels=False, mamba_d_state=4, mamba_dt_rank=4,
                   attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2),
    "jetmoe": newer("JetMoeConfig", kv_channels=8, num_attention_heads=4),
    "jina_embeddings_v3": newer("JinaEmbeddingsV3Config"),
    "layoutlmv2": newer("LayoutLMv2Config", "wordpiece"),
    "layoutlmv3": newer("LayoutLMv3Config", visual_embed=False, coordinate_size=3, shape_size=2,
                        max_2d_position_embeddings=64, rel_pos_bins=8, max_rel_pos=16,
                        max_position_embeddings=POSITIONS + 2),
    "minicpm3": newer("MiniCPM3Config", **LATENT),
    "minimax": newer("MiniMaxConfig", block_size=16,
                     layer_types=["full_attention", "linear_attention"]),
    "ministral": newer("MinistralConfig"),
    "ministral3": newer("Ministral3Config"),
    "mistral4": newer("Mistral4Config", **LATENT),
    "mixtral": newer("MixtralConfig"),
    "modernbert-decoder": newer("ModernBertDecoderConfig"),
    "modernvbert": newer("ModernVBertConfig", vision_config=SEEING,
                         text_config={**ARCHITECTURES["modernbert"][1], "model_type": "modernbert"}),
    "mpt": newer("MptConfig", d_model=WIDE, n_layers=2, n_heads=2, max_seq_len=POSITIONS),
    "nemotron": newer("NemotronConfig"),
    "olmo2": newer("Olmo2Config"),
    "olmo3": newer("Olmo3Config"),
    "perceiver": newer("PerceiverConfig", d_model=WIDE, d_latents=WIDE, num_latents=8,
                       num_self_attends_per_block=2, num_self_attention_heads=2,
                       num_cross_attention_heads=2, qk_channels=WIDE, v_channels=WIDE),
    "persimmon": newer("PersimmonConfig"),
    "phimoe": newer("PhimoeConfig"),
    "qwen2_moe": newer("Qwen2MoeConfig"),
    "qwen3_5": newer("Qwen3_5Config", text_config={**NEWER, **LINEAR}, vision_config=SEEING),
    "qwen3_5_text": newer("Qwen3_5TextConfig", **LINEAR),
    "qwen3_moe": newer("Qwen3MoeConfig"),
    "qwen3_next": newer("Qwen3NextConfig", **LINEAR),
    "reformer": newer("ReformerConfig", attention_head_size=8, axial_pos_shape=[8, 16],
                      axial_pos_embds_dim=[8, 8], feed_forward_size=32, is_decoder=False,
                      attn_layers=["local", "local"], local_attn_chunk_length=16),
    "seed_oss": newer("SeedOssConfig"),
    "smollm3": newer("SmolLM3Config"),
    "t5gemma": newer("T5GemmaConfig", encoder=READING, decoder=READING),
    "t5gemma2": newer("T5Gemma2Config", decoder=READING,
                      encoder={"text_config": READING, "vision_config": SEEING}),
    "tapas": newer("TapasConfig", "wordpiece", type_vocab_sizes=[3, 256, 256, 2, 256, 256, 10]),
    "ultrabert": newer("UltrabertConfig"),
    "ultravbert": newer("UltraVBertConfig", text_config=NEWER, vision_config=SEEING),
    "zamba": newer("ZambaConfig", mamba_d_state=4, mamba_dt_rank=4, n_mamba_heads=2,
                   use_mamba_kernels=False, attention_head_dim=16, attention_hidden_size=32,
                   layers_block_type=["mamba", "hybrid", "hybrid"], num_hidden_layers=3),
    "zamba2": newer("Zamba2Config", mamba_d_state=4, mamba_headdim=16, n_mamba_heads=2,
                    mamba_ngroups=1, use_mem_eff_path=False, layers_block_type=["mamba", "hybrid"],
                    chunk_size=16),
})  # fmt: skip

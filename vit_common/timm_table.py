"""The 251 architectures of timm 1.0.31's vision_transformer, deit, eva and beit; `timm_names.py` reads a row."""

TABLE = """\
vit
  aimv2_1b_patch14_224             14/224  2048x24x16 0    aimv2 mlp=2.75
  aimv2_1b_patch14_336             14/336  2048x24x16 0    aimv2 mlp=2.75
  aimv2_1b_patch14_448             14/448  2048x24x16 0    aimv2 mlp=2.75
  aimv2_3b_patch14_224             14/224  3072x24x24 0    aimv2 mlp=2.6667
  aimv2_3b_patch14_336             14/336  3072x24x24 0    aimv2 mlp=2.6667
  aimv2_3b_patch14_448             14/448  3072x24x24 0    aimv2 mlp=2.6667
  aimv2_huge_patch14_224           14/224  1536x24x12 0    aimv2 mlp=2.6667
  aimv2_huge_patch14_336           14/336  1536x24x12 0    aimv2 mlp=2.6667
  aimv2_huge_patch14_448           14/448  1536x24x12 0    aimv2 mlp=2.6667
  aimv2_large_patch14_224          14/224  1024x24x8  0    aimv2 mlp=2.75
  aimv2_large_patch14_336          14/336  1024x24x8  0    aimv2 mlp=2.75
  aimv2_large_patch14_448          14/448  1024x24x8  0    aimv2 mlp=2.75
  beit3_base_patch16_224           16/224  768x12x12  1000 beit3
  beit3_giant_patch14_224          14/224  1408x40x16 1000 beit3 mlp=4.3637
  beit3_giant_patch14_336          14/336  1408x40x16 1000 beit3 mlp=4.3637
  beit3_large_patch16_224          16/224  1024x24x16 1000 beit3
  eva_large_patch14_196            14/196  1024x24x16 1000 pool=avg
  eva_large_patch14_336            14/336  1024x24x16 1000 pool=avg
  flexivit_base                    16/240  768x12x12  1000 patch_pos
  flexivit_large                   16/240  1024x24x16 1000 patch_pos
  flexivit_small                   16/240  384x12x6   1000 patch_pos
  test_vit                         16/160  64x6x2     1000 dynamic mlp=3
  test_vit2                        16/160  64x8x2     1000 gap dynamic ls=1e-5 mlp=3 reg=1
  test_vit3                        16/160  96x9x3     1000 map_pool ls=1e-5 mlp=2 pool_include_prefix reg=1
  test_vit4                        16/160  96x9x3     1000 gap dynamic ls=1e-5 mlp=3 norm=rmsnorm_1e-6 reg=1
  vit_base_patch8_224              8/224   768x12x12  1000
  vit_base_patch14_dinov2          14/518  768x12x12  0    ls=1e-5
  vit_base_patch14_reg1_tipsv2     14/448  768x12x12  0    patch_pos ls=1 reg=1
  vit_base_patch14_reg4_dinov2     14/518  768x12x12  0    patch_pos ls=1e-5 reg=4
  vit_base_patch16_18x2_224        16/224  768x18x12  1000 block=parallel_things ls=1e-5
  vit_base_patch16_224             16/224  768x12x12  1000
  vit_base_patch16_224_miil        16/224  768x12x12  11221 no_qkv_bias
  vit_base_patch16_384             16/384  768x12x12  1000
  vit_base_patch16_clip_224        16/224  768x12x12  1000 clip
  vit_base_patch16_clip_384        16/384  768x12x12  1000 clip
  vit_base_patch16_clip_quickgelu_224 16/224  768x12x12  512  clip act=quick_gelu
  vit_base_patch16_gap_224         16/224  768x12x16  1000 gap_no_fc
  vit_base_patch16_plus_240        16/240  896x12x14  1000 ls=1e-5
  vit_base_patch16_plus_clip_240   16/240  896x12x14  640  clip
  vit_base_patch16_radio_v3        16/512  768x12x12  0    patch_pos no_final_norm ls=1e-5 reg=7
  vit_base_patch16_reg4_gap_256    16/256  768x12x12  1000 gap patch_pos reg=4
  vit_base_patch16_rpn_224         16/224  768x12x12  1000 gap block=res_post ls=1e-5 no_qkv_bias
  vit_base_patch16_siglip_224      16/224  768x12x12  0    map_pool
  vit_base_patch16_siglip_256      16/256  768x12x12  0    map_pool
  vit_base_patch16_siglip_384      16/384  768x12x12  0    map_pool
  vit_base_patch16_siglip_512      16/512  768x12x12  0    map_pool
  vit_base_patch16_siglip_gap_224  16/224  768x12x12  0    gap_no_fc
  vit_base_patch16_siglip_gap_256  16/256  768x12x12  0    gap_no_fc
  vit_base_patch16_siglip_gap_384  16/384  768x12x12  0    gap_no_fc
  vit_base_patch16_siglip_gap_512  16/512  768x12x12  0    gap_no_fc
  vit_base_patch16_xp_224          16/224  768x12x12  1000 xp
  vit_base_patch32_224             32/224  768x12x12  1000
  vit_base_patch32_384             32/384  768x12x12  1000
  vit_base_patch32_clip_224        32/224  768x12x12  1000 clip
  vit_base_patch32_clip_256        32/256  768x12x12  512  clip
  vit_base_patch32_clip_384        32/384  768x12x12  1000 clip
  vit_base_patch32_clip_448        32/448  768x12x12  1000 clip
  vit_base_patch32_clip_quickgelu_224 32/224  768x12x12  512  clip act=quick_gelu
  vit_base_patch32_plus_256        32/256  896x12x14  1000 ls=1e-5
  vit_base_patch32_siglip_256      32/256  768x12x12  0    map_pool act=gelu_tanh
  vit_base_patch32_siglip_gap_256  32/256  768x12x12  0    gap_no_fc act=gelu_tanh
  vit_betwixt_patch16_gap_256      16/256  640x12x10  1000 gap_no_fc ls=1e-6 no_qkv_bias
  vit_betwixt_patch16_reg1_gap_256 16/256  640x12x10  1000 gap patch_pos ls=1e-5 reg=1
  vit_betwixt_patch16_reg4_gap_256 16/256  640x12x10  1000 gap patch_pos ls=1e-5 reg=4
  vit_betwixt_patch16_reg4_gap_384 16/384  640x12x10  1000 gap patch_pos ls=1e-5 reg=4
  vit_betwixt_patch32_clip_224     32/224  640x12x10  512  clip
  vit_dlittle_patch16_reg1_gap_256 16/256  320x14x5   1000 gap patch_pos attn=diff ls=1e-5 mlp=5.6 reg=1
  vit_dpwee_patch16_reg1_gap_256   16/256  256x16x4   1000 gap patch_pos block=diff_parallel ls=1e-5 mlp=5 reg=1
  vit_dwee_patch16_reg1_gap_256    16/256  256x14x4   1000 gap patch_pos attn=diff ls=1e-5 mlp=5 reg=1
  vit_giant_patch14_224            14/224  1408x40x16 1000 mlp=48/11
  vit_giant_patch14_clip_224       14/224  1408x40x16 1024 clip mlp=48/11
  vit_giant_patch14_dinov2         14/518  1536x40x24 0    swiglu ls=1e-5 mlp=5.33334
  vit_giant_patch14_reg1_tipsv2    14/448  1536x40x24 0    swiglu patch_pos ls=1 mlp=5.33334 reg=1
  vit_giant_patch14_reg4_dinov2    14/518  1536x40x24 0    swiglu patch_pos ls=1e-5 mlp=5.33334 reg=4
  vit_giant_patch16_gap_224        16/224  1408x40x16 0    gap_no_fc mlp=48/11
  vit_giant_patch16_radio_v3       16/512  1536x40x24 0    patch_pos no_final_norm reg=7
  vit_giantopt_patch16_siglip_256  16/256  1536x40x16 0    map_pool act=gelu_tanh
  vit_giantopt_patch16_siglip_384  16/384  1536x40x16 0    map_pool act=gelu_tanh
  vit_giantopt_patch16_siglip_gap_256 16/256  1536x40x16 0    gap_no_fc act=gelu_tanh
  vit_giantopt_patch16_siglip_gap_384 16/384  1536x40x16 0    gap_no_fc act=gelu_tanh
  vit_gigantic_patch14_224         14/224  1664x48x16 1000 mlp=64/13
  vit_gigantic_patch14_clip_224    14/224  1664x48x16 1280 clip mlp=64/13
  vit_gigantic_patch14_clip_378    14/378  1664x48x16 1280 clip mlp=64/13
  vit_gigantic_patch14_clip_quickgelu_224 14/224  1664x48x16 1280 clip act=quick_gelu mlp=64/13
  vit_huge_patch14_224             14/224  1280x32x16 0
  vit_huge_patch14_clip_224        14/224  1280x32x16 1000 clip
  vit_huge_patch14_clip_336        14/336  1280x32x16 1000 clip
  vit_huge_patch14_clip_378        14/378  1280x32x16 1024 clip
  vit_huge_patch14_clip_quickgelu_224 14/224  1280x32x16 1024 clip act=quick_gelu
  vit_huge_patch14_clip_quickgelu_378 14/378  1280x32x16 1024 clip act=quick_gelu
  vit_huge_patch14_gap_224         14/224  1280x32x16 0    gap_no_fc
  vit_huge_patch14_xp_224          14/224  1280x32x16 1000 xp
  vit_huge_patch16_gap_448         16/448  1280x32x16 0    gap_no_fc
  vit_huge_patch16_radio_v3        16/512  1280x32x16 0    patch_pos no_final_norm reg=7
  vit_huge_patch16_radio_v4        16/512  1280x32x16 0    patch_pos no_final_norm reg=9
  vit_intern300m_patch14_448       14/448  1024x24x16 0    dynamic no_final_norm ls=0.1
  vit_large_patch14_224            14/224  1024x24x16 1000
  vit_large_patch14_clip_224       14/224  1024x24x16 1000 clip
  vit_large_patch14_clip_336       14/336  1024x24x16 1000 clip
  vit_large_patch14_clip_quickgelu_224 14/224  1024x24x16 768  clip act=quick_gelu
  vit_large_patch14_clip_quickgelu_336 14/336  1024x24x16 768  clip act=quick_gelu
  vit_large_patch14_dinov2         14/518  1024x24x16 0    ls=1e-5
  vit_large_patch14_reg1_tipsv2    14/448  1024x24x16 0    patch_pos ls=1 reg=1
  vit_large_patch14_reg4_dinov2    14/518  1024x24x16 0    patch_pos ls=1e-5 reg=4
  vit_large_patch14_xp_224         14/224  1024x24x16 1000 xp
  vit_large_patch16_224            16/224  1024x24x16 1000
  vit_large_patch16_384            16/384  1024x24x16 1000
  vit_large_patch16_radio_v3       16/512  1024x24x16 0    patch_pos no_final_norm ls=1e-5 reg=7
  vit_large_patch16_siglip_256     16/256  1024x24x16 0    map_pool
  vit_large_patch16_siglip_384     16/384  1024x24x16 0    map_pool
  vit_large_patch16_siglip_512     16/512  1024x24x16 0    map_pool act=gelu_tanh
  vit_large_patch16_siglip_gap_256 16/256  1024x24x16 0    gap_no_fc
  vit_large_patch16_siglip_gap_384 16/384  1024x24x16 0    gap_no_fc
  vit_large_patch16_siglip_gap_512 16/512  1024x24x16 0    gap_no_fc act=gelu_tanh
  vit_large_patch32_224            32/224  1024x24x16 0
  vit_large_patch32_384            32/384  1024x24x16 1000
  vit_little_patch16_reg1_gap_256  16/256  320x14x5   1000 gap patch_pos ls=1e-5 mlp=5.6 reg=1
  vit_little_patch16_reg4_gap_256  16/256  320x14x5   1000 gap patch_pos ls=1e-5 mlp=5.6 reg=4
  vit_medium_patch16_clip_224      16/224  512x12x8   512  clip
  vit_medium_patch16_gap_240       16/240  512x12x8   11821 gap_no_fc ls=1e-6 no_qkv_bias
  vit_medium_patch16_gap_256       16/256  512x12x8   1000 gap_no_fc ls=1e-6 no_qkv_bias
  vit_medium_patch16_gap_384       16/384  512x12x8   1000 gap_no_fc ls=1e-6 no_qkv_bias
  vit_medium_patch16_reg1_gap_256  16/256  512x12x8   1000 gap patch_pos ls=1e-5 reg=1
  vit_medium_patch16_reg4_gap_256  16/256  512x12x8   1000 gap patch_pos ls=1e-5 reg=4
  vit_medium_patch32_clip_224      32/224  512x12x8   512  clip
  vit_mediumd_patch16_reg4_gap_256 16/256  512x20x8   1000 gap patch_pos ls=1e-5 reg=4
  vit_mediumd_patch16_reg4_gap_384 16/384  512x20x8   1000 gap patch_pos ls=1e-5 reg=4
  vit_pwee_patch16_reg1_gap_256    16/256  256x16x4   1000 gap patch_pos block=parallel ls=1e-5 mlp=5 reg=1
  vit_small_patch8_224             8/224   384x12x6   0
  vit_small_patch14_dinov2         14/518  384x12x6   0    ls=1e-5
  vit_small_patch14_reg4_dinov2    14/518  384x12x6   0    patch_pos ls=1e-5 reg=4
  vit_small_patch16_18x2_224       16/224  384x18x6   1000 block=parallel_things ls=1e-5
  vit_small_patch16_36x1_224       16/224  384x36x6   1000 ls=1e-5
  vit_small_patch16_224            16/224  384x12x6   1000
  vit_small_patch16_384            16/384  384x12x6   1000
  vit_small_patch32_224            32/224  384x12x6   1000
  vit_small_patch32_384            32/384  384x12x6   1000
  vit_so150m2_patch16_reg1_gap_256 16/256  832x21x13  1000 gap ls=1e-5 mlp=34/13 no_qkv_bias reg=1
  vit_so150m2_patch16_reg1_gap_384 16/384  832x21x13  1000 gap ls=1e-5 mlp=34/13 no_qkv_bias reg=1
  vit_so150m2_patch16_reg1_gap_448 16/448  832x21x13  1000 gap ls=1e-5 mlp=34/13 no_qkv_bias reg=1
  vit_so150m_patch16_reg4_gap_256  16/256  896x18x14  1000 gap_no_fc mlp=2.572 reg=4
  vit_so150m_patch16_reg4_gap_384  16/384  896x18x14  1000 gap_no_fc mlp=2.572 reg=4
  vit_so150m_patch16_reg4_map_256  16/256  896x18x14  1000 map_pool mlp=2.572 reg=4
  vit_so400m_patch14_reg1_tipsv2   14/448  1152x27x16 0    patch_pos ls=1 mlp=269/72 reg=1
  vit_so400m_patch14_siglip_224    14/224  1152x27x16 0    map_pool mlp=3.7362
  vit_so400m_patch14_siglip_378    14/378  1152x27x16 0    map_pool mlp=3.7362
  vit_so400m_patch14_siglip_384    14/384  1152x27x16 0    map_pool mlp=3.7362
  vit_so400m_patch14_siglip_gap_224 14/224  1152x27x16 0    gap_no_fc mlp=3.7362
  vit_so400m_patch14_siglip_gap_378 14/378  1152x27x16 0    gap_no_fc mlp=3.7362
  vit_so400m_patch14_siglip_gap_384 14/384  1152x27x16 0    gap_no_fc mlp=3.7362
  vit_so400m_patch14_siglip_gap_448 14/448  1152x27x16 0    gap_no_fc mlp=3.7362
  vit_so400m_patch14_siglip_gap_896 14/896  1152x27x16 0    gap_no_fc mlp=3.7362
  vit_so400m_patch16_radio_v4      16/512  1152x27x16 0    patch_pos no_final_norm mlp=269/72 reg=9
  vit_so400m_patch16_siglip_256    16/256  1152x27x16 0    map_pool act=gelu_tanh mlp=3.7362
  vit_so400m_patch16_siglip_384    16/384  1152x27x16 0    map_pool act=gelu_tanh mlp=3.7362
  vit_so400m_patch16_siglip_512    16/512  1152x27x16 0    map_pool act=gelu_tanh mlp=3.7362
  vit_so400m_patch16_siglip_gap_256 16/256  1152x27x16 0    gap_no_fc act=gelu_tanh mlp=3.7362
  vit_so400m_patch16_siglip_gap_384 16/384  1152x27x16 0    gap_no_fc act=gelu_tanh mlp=3.7362
  vit_so400m_patch16_siglip_gap_512 16/512  1152x27x16 0    gap_no_fc act=gelu_tanh mlp=3.7362
  vit_tiny_patch16_224             16/224  192x12x3   1000
  vit_tiny_patch16_384             16/384  192x12x3   1000
  vit_wee_patch16_reg1_gap_256     16/256  256x14x4   1000 gap patch_pos ls=1e-5 mlp=5 reg=1
  vit_xsmall_patch16_clip_224      16/224  256x10x4   512  clip
  deit3_base_patch16_224           16/224  768x12x12  1000 patch_pos ls=1e-6
  deit3_base_patch16_384           16/384  768x12x12  1000 patch_pos ls=1e-6
  deit3_huge_patch14_224           14/224  1280x32x16 1000 patch_pos ls=1e-6
  deit3_large_patch16_224          16/224  1024x24x16 1000 patch_pos ls=1e-6
  deit3_large_patch16_384          16/384  1024x24x16 1000 patch_pos ls=1e-6
  deit3_medium_patch16_224         16/224  512x12x8   1000 patch_pos ls=1e-6
  deit3_small_patch16_224          16/224  384x12x6   1000 patch_pos ls=1e-6
  deit3_small_patch16_384          16/384  384x12x6   1000 patch_pos ls=1e-6
  deit_base_patch16_224            16/224  768x12x12  1000
  deit_base_patch16_384            16/384  768x12x12  1000
  deit_small_patch16_224           16/224  384x12x6   1000
  deit_tiny_patch16_224            16/224  192x12x3   1000
deit
  deit_base_distilled_patch16_224  16/224  768x12x12  1000
  deit_base_distilled_patch16_384  16/384  768x12x12  1000
  deit_small_distilled_patch16_224 16/224  384x12x6   1000
  deit_tiny_distilled_patch16_224  16/224  192x12x3   1000
eva
  eva02_base_patch14_224           14/224  768x12x12  0    eva02 split_qkv scale_mlp
  eva02_base_patch14_448           14/448  768x12x12  1000 eva02 split_qkv scale_mlp
  eva02_base_patch16_clip_224      16/224  768x12x12  512  eva02 pool=token split_qkv scale_attn_inner scale_mlp
  eva02_enormous_patch14_clip_224  14/224  1792x64x16 1024 pool=token mlp=60/7 use_post_norm
  eva02_large_patch14_224          14/224  1024x24x16 0    eva02 split_qkv scale_mlp
  eva02_large_patch14_448          14/448  1024x24x16 1000 eva02 split_qkv scale_mlp
  eva02_large_patch14_clip_224     14/224  1024x24x16 768  eva02 pool=token split_qkv scale_attn_inner scale_mlp
  eva02_large_patch14_clip_336     14/336  1024x24x16 768  eva02 pool=token split_qkv scale_attn_inner scale_mlp
  eva02_small_patch14_224          14/224  384x12x6   0    eva02
  eva02_small_patch14_336          14/336  384x12x6   1000 eva02
  eva02_tiny_patch14_224           14/224  192x12x3   0    eva02
  eva02_tiny_patch14_336           14/336  192x12x3   1000 eva02
  eva_giant_patch14_224            14/224  1408x40x16 1000 mlp=48/11
  eva_giant_patch14_336            14/336  1408x40x16 1000 mlp=48/11
  eva_giant_patch14_560            14/560  1408x40x16 1000 mlp=48/11
  eva_giant_patch14_clip_224       14/224  1408x40x16 1024 pool=token mlp=48/11
  vit_5b_patch16_sapiens2          16/1024x768 2432x56x32 0    sapiens2 kv=32x8+16x40+32x8
  vit_7b_patch16_dinov3            16/256  4096x40x32 0    dinov3 mlp=2 no_qkv_bias swiglu_align64
  vit_base_patch16_dinov3          16/256  768x12x12  0    dinov3 no_qkv_bias
  vit_base_patch16_dinov3_qkvb     16/256  768x12x12  0    dinov3
  vit_base_patch16_lingbot         16/512  768x12x12  0    dinov3 pool=token
  vit_base_patch16_rope_224        16/224  768x12x12  1000 rope_vit no_ape use_fc_norm=0
  vit_base_patch16_rope_ape_224    16/224  768x12x12  1000 rope_vit patch_pos
  vit_base_patch16_rope_mixed_224  16/224  768x12x12  1000 rope_vit mixed no_ape
  vit_base_patch16_rope_mixed_ape_224 16/224  768x12x12  1000 rope_vit mixed patch_pos
  vit_base_patch16_rope_reg1_gap_256 16/256  768x12x12  1000 rope_gap reg=1
  vit_base_patch16_sapiens2        16/1024x768 768x12x12  0    sapiens2
  vit_betwixt_patch16_rope_reg4_gap_256 16/256  640x12x10  1000 rope_gap reg=4
  vit_giant_patch16_lingbot        16/512  1536x40x24 0    dinov3 pool=token mlp=8/3 no_qkv_bias swiglu_align8
  vit_giant_patch16_sapiens2       16/1024x768 1536x40x24 0    sapiens2 kv=24x8+12x24+24x8
  vit_huge_patch16_sapiens2        16/1024x768 1280x32x16 0    sapiens2 kv=16x8+8x16+16x8
  vit_huge_plus_patch16_dinov3     16/256  1280x32x20 0    dinov3 no_qkv_bias swiglu_align8
  vit_huge_plus_patch16_dinov3_qkvb 16/256  1280x32x20 0    dinov3 swiglu_align8
  vit_large_patch16_dinov3         16/256  1024x24x16 0    dinov3 no_qkv_bias
  vit_large_patch16_dinov3_qkvb    16/256  1024x24x16 0    dinov3
  vit_large_patch16_lingbot        16/512  1024x24x16 0    dinov3 pool=token
  vit_large_patch16_rope_224       16/224  1024x24x16 1000 rope_vit no_ape
  vit_large_patch16_rope_ape_224   16/224  1024x24x16 1000 rope_vit patch_pos
  vit_large_patch16_rope_mixed_224 16/224  1024x24x16 1000 rope_vit mixed no_ape
  vit_large_patch16_rope_mixed_ape_224 16/224  1024x24x16 1000 rope_vit mixed patch_pos
  vit_large_patch16_sapiens2       16/1024x768 1024x24x16 0    sapiens2 kv=16x8+8x8+16x8
  vit_medium_patch16_rope_reg1_gap_256 16/256  512x12x8   1000 rope_gap reg=1
  vit_mediumd_patch16_rope_reg1_gap_256 16/256  512x20x8   1000 rope_gap reg=1 no_qkv_bias
  vit_pe_core_base_patch16_224     16/224  768x12x12  1024 pe pe_map ref=14x14 offset=1
  vit_pe_core_gigantic_patch14_448 14/448  1536x50x16 1280 pe pe_map no_cls mlp=35/6 ref=32x32
  vit_pe_core_large_patch14_336    14/336  1024x24x16 1024 pe pe_map ref=24x24 offset=1
  vit_pe_core_small_patch16_384    16/384  384x12x6   512  pe pe_map ref=24x24 offset=1
  vit_pe_core_tiny_patch16_384     16/384  192x12x3   512  pe pe_map ref=24x24 offset=1
  vit_pe_lang_gigantic_patch14_448 14/448  1536x47x16 0    pe no_norm no_cls ls=0.1 mlp=35/6 ref=32x32
  vit_pe_lang_large_patch14_448    14/448  1024x23x16 0    pe no_norm ls=0.1 ref=32x32 offset=1
  vit_pe_spatial_base_patch16_512  16/512  768x12x12  0    pe no_norm ref=32x32 offset=1
  vit_pe_spatial_gigantic_patch14_448 14/448  1536x50x16 0    pe no_norm no_cls ls=0.1 mlp=35/6 ref=32x32
  vit_pe_spatial_large_patch14_448 14/448  1024x24x16 0    pe no_norm ref=32x32 offset=1
  vit_pe_spatial_small_patch16_512 16/512  384x12x6   0    pe no_norm ref=32x32 offset=1
  vit_pe_spatial_tiny_patch16_512  16/512  192x12x3   0    pe no_norm ref=32x32 offset=1
  vit_small_patch16_dinov3         16/256  384x12x6   0    dinov3 no_qkv_bias
  vit_small_patch16_dinov3_qkvb    16/256  384x12x6   0    dinov3
  vit_small_patch16_lingbot        16/512  384x12x6   0    dinov3 pool=token
  vit_small_patch16_rope_224       16/224  384x12x6   1000 rope_vit no_ape
  vit_small_patch16_rope_ape_224   16/224  384x12x6   1000 rope_vit patch_pos
  vit_small_patch16_rope_mixed_224 16/224  384x12x6   1000 rope_vit mixed no_ape
  vit_small_patch16_rope_mixed_ape_224 16/224  384x12x6   1000 rope_vit mixed patch_pos
  vit_small_plus_patch16_dinov3    16/256  384x12x6   0    dinov3 no_qkv_bias swiglu_align8
  vit_small_plus_patch16_dinov3_qkvb 16/256  384x12x6   0    dinov3 swiglu_align8
  vit_tiny_patch16_dinov3_qkvb     16/256  192x12x3   0    dinov3
beit
  beit_base_patch16_224            16/224  768x12x12  1000 beit ls=0.1
  beit_base_patch16_384            16/384  768x12x12  1000 beit ls=0.1
  beit_large_patch16_224           16/224  1024x24x16 1000 beit ls=1e-5
  beit_large_patch16_384           16/384  1024x24x16 1000 beit ls=1e-5
  beit_large_patch16_512           16/512  1024x24x16 1000 beit ls=1e-5
  beitv2_base_patch16_224          16/224  768x12x12  1000 beit ls=1e-5
  beitv2_large_patch16_224         16/224  1024x24x16 1000 beit ls=1e-5
"""

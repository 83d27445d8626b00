"""Losses as the papers write them: tensors in, a scalar (or a map) out, one pure function per equation.

    L = L_det + lambda_f L_feat + lambda_a L_att + lambda_k L_kl

`detection` holds L_det, `feature` L_feat, `attention` L_att, `logits` L_kl; `ds2d2` and `implicit` hold the two
streams of DS2D2, the second for teachers that are detectors. Nothing here knows a network or a trainer.
"""

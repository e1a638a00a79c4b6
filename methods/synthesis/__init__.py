"""Parts that synthesizers are made of: the optimisation loop, loss terms and augmentations.

loop                what to subclass: Objective, ImageOptimizer; needs no torch to import
priors              class and total-variation losses
attention_priors    inter-head SSIM, Gaussian entropy, masks and alignment (MimiQ, MaskAQ)
patch_similarity    kernel-density entropy of patch similarities (PSAQ-ViT)
augmentations       shifts, flips and colours, drawn from an explicit generator
"""

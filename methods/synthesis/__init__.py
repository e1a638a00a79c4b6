"""Parts that synthesizers are made of: the optimisation loop, loss terms and augmentations.

loop                what to subclass: Objective, ImageOptimizer; needs no torch to import
generator_training  the same for methods that train a generator: GeneratorSynthesizer
generator           the conditional generators of GDFQ and Qimera
psaq_recipe         PSAQ-ViT's views, optimizer and rates, which FDD, SARDFQ and CLAMP-style images share
priors              class and total-variation losses
attention_priors    inter-head SSIM, Gaussian entropy, masks and alignment (MimiQ, MaskAQ)
patch_similarity    kernel-density entropy of patch similarities (PSAQ-ViT)
patch_contrast      patches against their neighbours, on maps in the image's order (CLAMP-style)
attention_mixtures  random mixtures of Gaussians for attention to follow (SARDFQ)
crops               crops that are optimised as images of their own (SARDFQ)
soft_labels         several classes at once (SARDFQ)
frequency           radial low-pass and band-pass filters (FDD)
augmentations       shifts, flips and colours, drawn from an explicit generator
"""

"""The binarisation test: is the attack good enough to find an adversarial image that is there for certain?

Zimmermann, Brendel, Tramèr and Carlini, "Increasing Confidence in Adversarial Robustness Evaluations" (NeurIPS 2022).
For each image the defense's last layer is replaced by a two-class one that tells points close to the image from a point
at distance eps: that point is adversarial by construction, to the whole defense with its purifier and noise. The same
attack, with the same parameters and adapters, then has to find an adversarial image. One that misses more than 5 % of
them says nothing about the defense. To pass is necessary and not sufficient.

`points` draws the images, `head` fits the last layer, `model` puts it into the defense, `problem` does all three for one
image, `run` attacks and judges, `result` is what comes out, free of torch.
"""

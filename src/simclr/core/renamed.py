"""Former names of parameters, for the error that an old params.yaml gets."""

_VIEWS = {
    "crop_scale": "crop.scale", "crop_ratio": "crop.ratio", "flip": "flip.probability",
    "jitter": "jitter.probability", "brightness": "jitter.brightness", "contrast": "jitter.contrast",
    "saturation": "jitter.saturation", "hue": "jitter.hue", "grayscale": "grayscale.probability",
    "blur": "blur.probability", "blur_sigma": "blur.sigma", "solarize": "solarize.probability",
    "solarize_threshold": "solarize.threshold",
}  # fmt: skip
RENAMED = {
    "pretrain.temperature": "losses.nt_xent.temperature",
    "pretrain.encoder": "models.resnet",
    "pretrain.head": "methods.simclr.head",
    "pretrain.views.size": "pretrain.views.resolution",
    **{f"pretrain.penalty.{name}": f"pretrain.penalty.representations.{name}" for name in ("l2", "smooth_l1")},
    **{f"pretrain.views.{old}": f"augment.{new}" for old, new in _VIEWS.items()},
}

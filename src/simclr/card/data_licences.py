"""The licences of the sources' images, as their authors state them.

They stand here and not in `sources`, where a better wording would have fetch download everything again.
"""

_BY_SOURCE = {
    "cifar10": "none stated by its authors",
    "cifar100": "none stated by its authors",
    "digits": "CC BY 4.0 (UCI Machine Learning Repository, Optical Recognition of Handwritten Digits)",
    "fashion_mnist": "MIT",
    "folder": "that of the images in the user's folder, which the pipeline does not know",
    "stl10": "none stated by its authors; the images are from ImageNet",
    "svhn": "for non-commercial use only",
    "tiny_imagenet": "none stated by its authors; the images are from ImageNet",
}
NOT_STATED = "not stated"


def data_licence(source: str) -> str:
    """The licence of the images of `fetch.source`; `NOT_STATED` for a source that is not known here."""
    return _BY_SOURCE.get(source, NOT_STATED)

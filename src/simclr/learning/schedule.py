"""The learning rate: a peak scaled by the global batch, times a function of the step."""

import math


def scaled_lr(lr: float, batch_size: int, rule: str) -> float:
    """The peak learning rate for a global batch of `batch_size` samples (Chen et al. 2020, appendix B.1).

    "linear": lr * batch / 256; "sqrt": lr * sqrt(batch); "none": lr.
    """
    factor = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size), "none": 1.0}[rule]
    return lr * factor


def warmup_cosine(step: int, steps: int, warmup_steps: int) -> float:
    """The factor on the peak learning rate in step `step` of `steps` (counted from 0).

    Linear from 1 / warmup_steps to 1 in the first `warmup_steps` steps, then half a cosine towards 0 (Loshchilov and
    Hutter 2017, without restarts; Chen et al. 2020, section 2.2).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))

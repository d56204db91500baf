"""The learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", section 3.3).

The recipe of params.yaml is trained for some hundred steps with a rate that rises exponentially; the curve of the loss
over the rate names one for `pretrain.optimizer.lr`. It is a measurement beside the pipeline: no stage reads it, and DVC
tracks nothing of it. The command is `simclr lr-range`.
"""

"""Parameters that had another name, so that an old params.yaml is told the new one."""

RENAMED = {
    "pretrain.temperature": "losses.nt_xent.temperature",
    "pretrain.views.size": "pretrain.views.resolution",
}

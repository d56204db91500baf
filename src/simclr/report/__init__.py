"""Pictures of the stages' results, as PNG files for Git and DVC."""

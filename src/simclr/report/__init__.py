"""Pictures as PNG files, for Git and DVC, of what the stages wrote."""

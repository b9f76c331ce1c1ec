"""ACT that looks through a DINOv2 vision transformer."""

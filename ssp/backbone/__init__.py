"""The backbone that all methods tune: VideoMamba, with published or own weights. Knows nothing of methods."""

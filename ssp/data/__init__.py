"""Video data: archives > manifest > frames > clips. One module per stage; importing this package loads no torch."""

from ssp.data.video import VideoError, read_frames

__all__ = ["VideoError", "read_frames"]

"""Pictures, drawn with matplotlib from a report's plain values alone."""

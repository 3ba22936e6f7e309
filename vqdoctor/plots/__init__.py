"""Pictures, drawn with matplotlib from a report's evidence alone. Not written yet."""

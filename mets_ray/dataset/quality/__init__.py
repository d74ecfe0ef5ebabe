"""What a person should know of a prepared data set before training on it: measured, counted, judged, and shown on a
page."""

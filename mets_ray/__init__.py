"""mets_ray: zero-shot ECG recognition from reports, on Ray."""

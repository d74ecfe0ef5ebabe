"""One ECG as a value: read from any format, checked, preprocessed, made up."""

__all__ = ["ecg", "preprocess", "synthetic_patients", "synthetic_waveforms", "wfdb"]

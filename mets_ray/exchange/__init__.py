"""A bundle for others: a folder as the Hugging Face hub has them, with a model card and an ONNX model of the ECG side.

`mets-ray export` writes it, and pushes it when asked. `load_bundle` reads it back; `zero_shot.py` in it needs numpy and
ONNX Runtime only.
"""

"""A run for other programs: an ONNX graph, or a folder in Hugging Face layout."""

from hfc.predict.export.huggingface import export_hf, exported_files
from hfc.predict.export.onnx import Exported, export_onnx

__all__ = ["Exported", "export_hf", "export_onnx", "exported_files"]

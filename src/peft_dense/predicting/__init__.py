"""Predict images: label maps at the images' own size, and pictures of them."""

from peft_dense.predicting.passes import normalise, raw_maps, undisturbed
from peft_dense.predicting.prediction import Prediction
from peft_dense.predicting.predictor import predict
from peft_dense.predicting.preparing import prepare, to_size

__all__ = ["Prediction", "normalise", "predict", "prepare", "raw_maps", "to_size", "undisturbed"]

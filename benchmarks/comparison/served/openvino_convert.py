"""Convert a transformers model for OpenVINO: ``python openvino_convert.py MODEL OUT.xml``."""

import sys

import openvino
import torch
from transformers import AutoModelForSequenceClassification


class Logits(torch.nn.Module):
    """The model with positional inputs and one output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
ids = torch.ones(2, 8, dtype=torch.int64)
shape = openvino.PartialShape([-1, -1])
graph = openvino.convert_model(
    Logits(model), example_input=(ids, ids), input=[(shape, openvino.Type.i64)] * 2
)
openvino.save_model(graph, sys.argv[2])

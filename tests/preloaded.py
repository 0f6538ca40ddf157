"""Import what the processes of ``tests/warm.py`` share when they start.

The list comes from ``-X importtime``: what an export, an invoke and a deploy import.
"""

# ruff: noqa: F401

import gc

import boto3.session
import onnxruntime.transformers.optimizer
import pydantic.fields
import pydantic.type_adapter
import rich.console
import torch._dynamo
import torch.onnx
import transformers.loss.loss_utils
import transformers.masking_utils
import transformers.models.bert.modeling_bert
import transformers.models.distilbert.modeling_distilbert
import transformers.models.roberta.modeling_roberta

import fastai_deploy.cli.app
import fastai_deploy.cli.show
import fastai_deploy.stages
import fastai_deploy.targets.aws.operations
import fastai_deploy.targets.local.operations

# A million permanent objects, exempt from garbage collection in the forked processes.
gc.collect()
gc.freeze()
